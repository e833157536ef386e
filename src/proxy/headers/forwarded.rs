//! Who the client is, as an engine is told.
//!
//! What a client says of itself is dropped: the socket knows better. Only
//! proxies that are listed (`--trusted-proxies`) are believed, and added to.

use http::header::{self, HeaderName};

use super::{Outgoing, field};

/// Bytes of the addresses before our own that are passed on at most: of a
/// longer list its end, which is nearest to us.
const MAX_LIST: usize = 1024;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Fields that tell who a client is, and how it came.
pub(super) fn tells_who(name: &HeaderName) -> bool {
    let text = name.as_str();
    *name == header::FORWARDED
        || text.starts_with("x-forwarded-")
        || matches!(text, "x-real-ip" | "true-client-ip")
}

impl Outgoing<'_> {
    /// Whether that field is not passed on as it came.
    pub(super) fn writes(&self, name: &HeaderName) -> bool {
        tells_who(name) && (!self.is_trusted || *name == FOR)
    }

    /// Appends the address of who sent it, and how it came.
    pub(super) fn tell_who(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"x-forwarded-for: ");
        if self.is_trusted {
            self.tell_of_those_before(out);
        }
        out.extend_from_slice(self.peer.as_bytes());
        out.extend_from_slice(b"\r\n");
        if !(self.is_trusted && self.head.headers.contains_key(PROTO)) {
            let scheme: &[u8] = if self.is_tls { b"https" } else { b"http" };
            field(out, b"x-forwarded-proto", scheme);
        }
    }

    /// Each address that the sender told, and a comma.
    fn tell_of_those_before(&self, out: &mut Vec<u8>) {
        let lists = self.head.headers.get_all(FOR).iter();
        let hosts = lists.flat_map(|list| list.as_bytes().split(|byte| *byte == b','));
        let hosts: Vec<&[u8]> = hosts
            .map(<[u8]>::trim_ascii)
            .filter(|host| !host.is_empty())
            .collect();
        let mut room = MAX_LIST;
        let fitting = hosts.iter().rev().take_while(|host| {
            room = room.saturating_sub(host.len() + 2);
            room > 0
        });
        let skipped = hosts.len() - fitting.count();
        for host in &hosts[skipped..] {
            out.extend_from_slice(host);
            out.extend_from_slice(b", ");
        }
    }
}
