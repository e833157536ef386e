"""nginx and Envoy before the same engine, set up as for streams of tokens."""

import json
import pathlib
import shutil
import sys

import common as c

ENVOY = pathlib.Path(sys.executable).parent / "envoy"


def nginx(engine, folder):
    """A process and its port, or None where there is no nginx."""
    if not shutil.which("nginx"):
        return None
    port = c.free_port()
    folder.mkdir(exist_ok=True)
    (folder / "nginx.conf").write_text(f"""
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  upstream engine {{ server 127.0.0.1:{engine}; keepalive 16; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_request_buffering off;
    }}
  }}
}}""")
    process = c.Process(["nginx", "-p", folder, "-c", folder / "nginx.conf"])
    c.wait_for(port, None)
    return process, port


def envoy(engine, folder):
    """A process and its port, or None where there is no Envoy."""
    if not ENVOY.exists():
        return None
    port = c.free_port()
    folder.mkdir(exist_ok=True)

    def address(number):
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "codec_type": "AUTO",
        "stream_idle_timeout": "300s",
        "request_headers_timeout": "10s",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "engine", "timeout": "0s"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    config = {
        "static_resources": {
            "listeners": [
                {
                    "name": "in",
                    "address": address(port),
                    "filter_chains": [{"filters": [{"name": "manager", "typed_config": manager}]}],
                }
            ],
            "clusters": [
                {
                    "name": "engine",
                    "type": "STATIC",
                    "connect_timeout": "2s",
                    "load_assignment": {
                        "cluster_name": "engine",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(engine)}}]}],
                    },
                }
            ],
        }
    }
    (folder / "envoy.json").write_text(json.dumps(config))
    flags = ["--concurrency", "1", "--use-dynamic-base-id", "--disable-hot-restart", "-l", "off"]
    process = c.Process([ENVOY, "-c", folder / "envoy.json", *flags])
    c.wait_for(port, None)
    return process, port
