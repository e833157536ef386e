//! Plugins of a kubeconfig (`exec`): commands that print who we are.
//!
//! `kube` would run them itself: twice for one client, on the thread that asks, for
//! as long as they like, and with all that they were given in its errors.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::jiff::Timestamp;
use kube::config::{AuthInfo, ExecConfig};
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Bytes that a plugin may print: far more than any token, or chain of certificates.
const MOST_OUTPUT: u64 = 1 << 20;

/// What a plugin gave.
pub(super) struct Given {
    /// Credentials that are used as they are.
    pub(super) info: AuthInfo,
    /// When they run out.
    pub(super) expires: Option<Timestamp>,
}

/// Why a plugin gave nothing. The command's name is all that is told of it: what it
/// is given, and what it prints, may be secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadPlugin {
    #[error("the kubeconfig's exec plugin has no command")]
    NoCommand,
    #[error("the plugin `{0}` cannot be run: {1}")]
    Unrunnable(String, std::io::Error),
    #[error("the plugin `{0}` failed ({1}): run it by hand to see why")]
    Failed(String, ExitStatus),
    #[error("the plugin `{0}` took longer than {1:?}")]
    Late(String, Duration),
    #[error(
        "the plugin `{0}` did not print an ExecCredential with a token, or with a certificate and its key"
    )]
    Mute(String),
}

/// The plugin that has to be run for these credentials: others come first.
pub(super) fn of(info: &AuthInfo) -> Option<&ExecConfig> {
    let is_basic = info.username.is_some() && info.password.is_some();
    let has_others = info.auth_provider.is_some()
        || is_basic
        || info.token.is_some()
        || info.token_file.is_some();
    info.exec.as_ref().filter(|_| !has_others)
}

/// Runs it; it is killed if it takes longer, or if nobody waits any more.
pub(super) async fn run(
    info: &AuthInfo,
    exec: &ExecConfig,
    within: Duration,
) -> Result<Given, BadPlugin> {
    let name = exec.command.clone().ok_or(BadPlugin::NoCommand)?;
    let unrunnable = |error| BadPlugin::Unrunnable(name.clone(), error);
    let child = command(&name, exec).spawn().map_err(unrunnable)?;
    let Ok(printed) = timeout(within, printed(child)).await else {
        return Err(BadPlugin::Late(name, within));
    };
    let (status, output) = printed.map_err(unrunnable)?;
    if !status.success() {
        return Err(BadPlugin::Failed(name, status));
    }
    given(info, &output).ok_or(BadPlugin::Mute(name))
}

fn command(name: &str, exec: &ExecConfig) -> Command {
    let mut command = Command::new(name);
    let variables = exec.env.iter().flatten();
    command
        .args(exec.args.iter().flatten())
        .envs(variables.filter_map(|one| Some((one.get("name")?, one.get("value")?))))
        .env("KUBERNETES_EXEC_INFO", asked(exec))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command
}

/// What plugins are told of whom they are asked for.
fn asked(exec: &ExecConfig) -> String {
    let mut spec = serde_json::json!({ "interactive": false });
    if let Some(cluster) = exec.cluster.as_ref().filter(|_| exec.provide_cluster_info) {
        // Plain data: that it can be written is no question.
        spec["cluster"] = serde_json::to_value(cluster).unwrap_or_default();
    }
    let asked = serde_json::json!({
        "kind": "ExecCredential", "apiVersion": exec.api_version, "spec": spec,
    });
    asked.to_string()
}

async fn printed(mut child: Child) -> std::io::Result<(ExitStatus, Vec<u8>)> {
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MOST_OUTPUT).read_to_end(&mut output).await?;
    }
    Ok((child.wait().await?, output))
}

/// `ExecCredential` of `client.authentication.k8s.io`, as much as we need. Some
/// plugins print YAML, which JSON is, too.
#[derive(Deserialize)]
struct ExecCredential {
    status: Credential,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Credential {
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
    expiration_timestamp: Option<Timestamp>,
}

fn given(info: &AuthInfo, output: &[u8]) -> Option<Given> {
    let text = std::str::from_utf8(output).ok()?;
    let ExecCredential { status } = serde_saphyr::from_str(text).ok()?;
    let mut info = info.clone();
    info.exec = None;
    match status {
        Credential {
            client_certificate_data: Some(certificate),
            client_key_data: Some(key),
            ..
        } => {
            info.client_certificate_data = Some(encoded(certificate)?);
            info.client_key_data = Some(encoded(key)?.into());
            info.token = status.token.map(Into::into);
        }
        Credential {
            token: Some(token), ..
        } => info.token = Some(token.into()),
        _ => return None,
    }
    Some(Given {
        info,
        expires: status.expiration_timestamp,
    })
}

/// As kubeconfigs have it: in Base64.
fn encoded(text: String) -> Option<String> {
    let encoded = serde_json::to_value(ByteString(text.into_bytes())).ok()?;
    encoded.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(script: &str) -> (AuthInfo, ExecConfig) {
        let info = serde_json::from_value(serde_json::json!({ "exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/sh",
            "args": ["-c", script], "env": [{"name": "PLUGIN_SECRET", "value": "hush"}],
        }}));
        let info: AuthInfo = info.unwrap();
        let exec = of(&info).unwrap().clone();
        (info, exec)
    }

    async fn ran(script: &str, within: Duration) -> Result<serde_json::Value, String> {
        let (info, exec) = plugin(script);
        let given = run(&info, &exec, within).await;
        let given = given.map_err(|bad| bad.to_string())?;
        let mut told = serde_json::to_value(given.info).unwrap();
        told["expires"] = given.expires.map(Timestamp::as_second).into();
        Ok(told)
    }

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn what_plugins_print() {
        let token = ran(
            r#"echo '{"kind":"ExecCredential","status":{"token":"t","expirationTimestamp":"1970-01-01T01:00:00Z"}}'"#,
            PATIENCE,
        );
        let token = token.await.unwrap();
        assert_eq!(
            (&token["token"], &token["expires"]),
            (&"t".into(), &3600.into())
        );
        let pair = r#"echo '{"status":{"clientCertificateData":"c","clientKeyData":"key"}}'"#;
        let pair = ran(pair, PATIENCE).await.unwrap();
        assert_eq!(pair["client-certificate-data"], "Yw==");
        assert_eq!(pair["client-key-data"], "a2V5");
        // YAML; what it was told and given.
        let yaml = r#"printf 'status:\n  token: "%s %s"\n' "$PLUGIN_SECRET" "$(echo "$KUBERNETES_EXEC_INFO" | tr -d '"{}')""#;
        let yaml = ran(yaml, PATIENCE).await.unwrap();
        let told = yaml["token"].as_str().unwrap();
        for part in [
            "hush ",
            "client.authentication.k8s.io/v1",
            "interactive:false",
        ] {
            assert!(told.contains(part), "{told}");
        }
    }

    #[tokio::test]
    async fn a_bad_plugin_is_told_of_without_its_secrets() {
        for (script, part) in [
            ("echo hush; echo hush >&2; exit 3", "(exit status: 3)"),
            ("echo hush", "did not print"),
            ("echo '{}'", "did not print"),
            (
                r#"echo '{"status":{"clientKeyData":"hush"}}'"#,
                "did not print",
            ),
        ] {
            let told = ran(script, PATIENCE).await.unwrap_err();
            assert!(told.contains("`/bin/sh`") && told.contains(part), "{told}");
            assert!(!told.contains("hush") && !told.contains("echo"), "{told}");
        }
        let (info, mut exec) = plugin("");
        exec.command = Some("/nowhere/plugin".into());
        let told = run(&info, &exec, PATIENCE).await.err().unwrap();
        assert!(told.to_string().contains("`/nowhere/plugin` cannot be run"));
    }

    #[tokio::test]
    async fn a_plugin_that_hangs_is_killed() {
        let told = ran("exec sleep 600", Duration::from_millis(20)).await;
        assert!(told.unwrap_err().ends_with("took longer than 20ms"));
        // One that closes its output, too; one that prints for ever.
        let told = ran("exec sleep 600 >&-", Duration::from_millis(20)).await;
        assert!(told.unwrap_err().ends_with("took longer than 20ms"));
        let told = ran("exec cat /dev/zero", PATIENCE).await;
        assert!(told.unwrap_err().contains("failed"));
    }

    #[test]
    fn others_come_first() {
        let (mut info, _) = plugin("");
        info.token_file = Some("/token".into());
        assert!(of(&info).is_none());
    }
}
