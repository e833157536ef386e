//! How an idle connection makes room for others.

use std::time::Duration;

use tokio::net::TcpStream;

use super::ConnState;
use crate::net;

/// How long an HTTP/2 client that was asked to leave may take.
const LEAVING: Duration = Duration::from_secs(5);

impl ConnState {
    /// Others need its room.
    pub(in crate::downstream) fn ask_to_leave(&self) {
        self.asked_to_leave.set(true);
        self.deadline.wake();
    }

    #[cfg(test)]
    pub(in crate::downstream) fn is_asked_to_leave(&self) -> bool {
        self.asked_to_leave.get()
    }

    /// Whether it has been asked to leave and nothing of a request has come.
    /// To be asked of once hyper has read what it wanted.
    pub(in crate::downstream) fn leaves(&self, stream: &TcpStream) -> bool {
        if !self.asked_to_leave.replace(false) || !self.rests() || net::has_unread(stream) {
            return false;
        }
        self.idle.count_closed();
        true
    }

    /// The same, of an HTTP/2 connection: what is under way may end.
    pub(in crate::downstream) fn leaves_http2(&self) -> bool {
        if !self.asked_to_leave.replace(false) || !self.rests() {
            return false;
        }
        self.deadline.set(LEAVING);
        self.idle.count_closed();
        true
    }
}
