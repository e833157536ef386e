//! HTTP/2 by hand: frames as no library would send them.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use crate::support::PATIENCE;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame that came.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// A connection.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

/// A frame as bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Fields as literals that no table takes up, without Huffman's code.
pub(crate) fn fields<N: AsRef<[u8]>, V: AsRef<[u8]>>(pairs: &[(N, V)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in pairs {
        block.push(0);
        text(&mut block, name.as_ref());
        text(&mut block, value.as_ref());
    }
    block
}

/// A text of HPACK: its length, in seven bits and as many more as it takes.
pub(crate) fn text(block: &mut Vec<u8>, text: &[u8]) {
    let mut length = text.len();
    if length < 127 {
        block.push(length as u8);
    } else {
        block.push(127);
        length -= 127;
        while length >= 128 {
            block.push((length % 128) as u8 | 128);
            length /= 128;
        }
        block.push(length as u8);
    }
    block.extend(text);
}

/// The pseudo-fields of a request.
pub(crate) fn pseudo(
    method: &'static str,
    path: &'static str,
) -> Vec<(&'static str, &'static str)> {
    vec![
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
    ]
}

impl Raw {
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self::open_with(address, &[])
    }

    /// With these settings.
    pub(crate) fn open_with(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut payload = Vec::new();
        for (id, value) in settings {
            payload.extend(id.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        let mut raw = Self {
            stream,
            buffer: Vec::new(),
        };
        raw.write(PREFACE).unwrap();
        raw.write(&frame(SETTINGS, 0, 0, &payload)).unwrap();
        raw
    }

    /// Sends bytes; an error when the other side has ended it.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next frame; none at the connection's end.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(head) = self.buffer.first_chunk::<9>() {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                if self.buffer.len() >= 9 + length {
                    let found = Frame {
                        kind: head[3],
                        stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
                        payload: self.buffer[9..9 + length].to_vec(),
                    };
                    self.buffer.drain(..9 + length);
                    return Some(found);
                }
            }
            let mut piece = [0; 16 << 10];
            match self.stream.read(&mut piece) {
                Ok(n) if n > 0 => self.buffer.extend_from_slice(&piece[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    panic!("nothing more came, and no end: {:?}", self.buffer)
                }
                _ => return None,
            }
        }
    }

    /// What came of a stream: its status, or that it was reset, or that the
    /// connection ended.
    pub(crate) fn outcome(&mut self, stream: u32) -> Came {
        while let Some(frame) = self.next() {
            match frame.kind {
                HEADERS if frame.stream == stream => return Came::Status(status(&frame.payload)),
                RST_STREAM if frame.stream == stream => return Came::Reset,
                GOAWAY if frame.payload[4..8] != [0; 4] => return Came::GoAway,
                _ => {}
            }
        }
        Came::End
    }
}

/// What came of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    Status(u16),
    Reset,
    /// With an error.
    GoAway,
    End,
}

/// The status of a first answer: the first field, as an entry of the static
/// table or with its number in Huffman's code or plain.
fn status(block: &[u8]) -> u16 {
    let block = match block {
        // The table's size changes first.
        [size, rest @ ..] if size & 0xe0 == 0x20 => rest,
        whole => whole,
    };
    match block {
        [0x88, ..] => 200,
        [0x89, ..] => 204,
        [0x8c, ..] => 400,
        [0x8d, ..] => 404,
        [0x8e, ..] => 500,
        [_, length, value @ ..] if length & 0x80 == 0 => {
            let value = &value[..usize::from(*length)];
            std::str::from_utf8(value).unwrap().parse().unwrap()
        }
        [_, length, value @ ..] => huffman(&value[..usize::from(length & 0x7f)]),
        _ => panic!("no status in {block:?}"),
    }
}

/// Three digits: `0` to `2` are five bits, `3` to `9` six.
fn huffman(code: &[u8]) -> u16 {
    let bits: Vec<u16> = (code.iter())
        .flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1)))
        .collect();
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let five = bits[at..at + 5].iter().fold(0, |sum, bit| sum * 2 + bit);
        let digit = if five < 3 {
            at += 5;
            five
        } else {
            at += 6;
            five * 2 + bits[at - 1] - 0b011_001 + 3
        };
        number = number * 10 + digit;
    }
    number
}

#[test]
fn a_status_is_read_as_it_may_be_written() {
    assert_eq!(status(&[0x88]), 200);
    assert_eq!(status(&[0x48, 3, b'4', b'0', b'5']), 405);
    // RFC 7541, C.6.1 and C.6.2.
    assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), 302);
    assert_eq!(status(&[0x48, 0x83, 0x64, 0x0e, 0xff]), 307);
    let mut long = Vec::new();
    text(&mut long, &[b'x'; 1337]);
    assert_eq!(long[..3], [127, 0xba, 0x09]);
}
