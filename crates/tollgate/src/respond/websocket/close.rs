//! The closing handshake of a WebSocket (RFC 6455 section 7), without a WebSocket library. Sends one frame, and skips all data
//! up to the caller's own close, in constant memory.

use std::io;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

/// Sent instead of a code that must not be sent.
pub(super) const POLICY_VIOLATION: u16 = 1008;

const CLOSE: u8 = 0x8;
const IS_FINAL: u8 = 0x80;
const IS_MASKED: u8 = 0x80;
const MASK_LENGTH: u64 = 4;
// The space for the reason in a control frame (section 5.5), besides the code.
pub(super) const MAX_REASON: usize = 123;

/// A close frame sent to a client, so it is not masked.
pub(super) struct CloseFrame(Vec<u8>);

impl CloseFrame {
    pub(super) fn new(code: u16, reason: &str) -> Self {
        let code = if is_sendable(code) { code } else { POLICY_VIOLATION };
        let reason = cut(reason, MAX_REASON);
        // At most 125.
        let length = u8::try_from(size_of_val(&code) + reason.len()).unwrap_or(u8::MAX);
        let mut frame = vec![IS_FINAL | CLOSE, length];
        frame.extend(code.to_be_bytes());
        frame.extend(reason.as_bytes());
        Self(frame)
    }
}

/// The beginning of a text, at most `length` bytes long. Does not split a character.
pub(super) fn cut(text: &str, length: usize) -> &str {
    let end = (0..=length.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

/// Whether a code is allowed in a close frame (RFC 6455 section 7.4, and codes registered later).
pub(super) fn is_sendable(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Waits for the upgrade, then closes the WebSocket.
pub(super) async fn close(upgrade: OnUpgrade, frame: CloseFrame) -> io::Result<()> {
    let upgraded = upgrade.await.map_err(io::Error::other)?;
    close_connection(TokioIo::new(upgraded), frame).await
}

/// Closes an open WebSocket. The connection stays open until the caller's close: if it ended while data from the caller is unread,
/// TCP would reset it, and the close frame could be lost.
async fn close_connection(
    connection: impl AsyncRead + AsyncWrite + Unpin,
    frame: CloseFrame,
) -> io::Result<()> {
    let mut connection = BufReader::with_capacity(512, connection);
    connection.write_all(&frame.0).await?;
    connection.flush().await?;
    skip_to_close(&mut connection).await?;
    connection.shutdown().await
}

/// Reads frames (RFC 6455 section 5.2) and skips their payload, up to a close frame.
async fn skip_to_close(mut connection: impl AsyncBufRead + Unpin) -> io::Result<()> {
    loop {
        let opcode = connection.read_u8().await? & 0x0f;
        let second = connection.read_u8().await?;
        let length = match second & !IS_MASKED {
            126 => u64::from(connection.read_u16().await?),
            127 => connection.read_u64().await?,
            length => u64::from(length),
        };
        let mask = if second & IS_MASKED == 0 { 0 } else { MASK_LENGTH };
        let mut rest = (&mut connection).take(length.saturating_add(mask));
        tokio::io::copy_buf(&mut rest, &mut tokio::io::sink()).await?;
        if opcode == CLOSE {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    /// A running close, and its peer, which has read the close frame.
    async fn started() -> (tokio::task::JoinHandle<io::Result<()>>, DuplexStream) {
        let (server, mut peer) = duplex(64);
        let closing = tokio::spawn(close_connection(server, CloseFrame::new(4401, "no")));
        let mut frame = [0; 6];
        peer.read_exact(&mut frame).await.unwrap();
        assert_eq!(frame, *b"\x88\x04\x11\x31no");
        (closing, peer)
    }

    #[tokio::test]
    async fn closes_after_the_peer_has_closed_regardless_of_earlier_frames() {
        let (closing, mut peer) = started().await;
        // Frames with every form of length, one of them unmasked. The payload looks like close frames.
        for (header, length) in [
            (&[0x81, 0x80][..], 4),
            (&[0x82, 0x85], 4 + 5),
            (&[0x82, 0x05], 5),
            (&[0x02, 0xfe, 0x01, 0x00], 4 + 256),
            (&[0x80, 0xff, 0, 0, 0, 0, 0, 1, 0, 0], 4 + 65_536),
            (&[0x89, 0x80], 4),
        ] {
            peer.write_all(header).await.unwrap();
            peer.write_all(&vec![0x88; length]).await.unwrap();
            assert!(!closing.is_finished());
        }
        peer.write_all(&[0x88, 0x82, 1, 2, 3, 4, 5, 6]).await.unwrap();
        closing.await.unwrap().unwrap();
        assert_eq!(peer.read(&mut [0]).await.unwrap(), 0, "the connection ends");
    }

    #[tokio::test]
    async fn ends_when_the_peer_disconnects() {
        for sent in [&b""[..], b"\x81", b"\x81\xff\0", b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff1234567"] {
            let (closing, mut peer) = started().await;
            peer.write_all(sent).await.unwrap();
            drop(peer);
            closing.await.unwrap().unwrap_err();
        }
    }

    #[test]
    fn truncates_a_long_reason_between_characters() {
        let CloseFrame(frame) = CloseFrame::new(4403, &"é".repeat(100));
        let (head, reason) = frame.split_at(4);
        assert_eq!(head, [0x88, 124, 0x11, 0x33]);
        assert_eq!(std::str::from_utf8(reason).unwrap(), "é".repeat(61));

        let CloseFrame(frame) = CloseFrame::new(4403, &"x".repeat(123));
        assert_eq!((frame[1], frame.len()), (125, 127));
    }

    #[test]
    fn replaces_codes_that_must_not_be_sent() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, u16::MAX] {
            let CloseFrame(frame) = CloseFrame::new(code, "");
            assert_eq!(frame, [0x88, 2, 0x03, 0xf0], "{code}");
        }
        for code in [1000, 1001, 1008, 1011, 1013, 3000, 4000, 4999_u16] {
            let CloseFrame(frame) = CloseFrame::new(code, "");
            assert_eq!(frame[2..], code.to_be_bytes(), "{code}");
        }
    }
}
