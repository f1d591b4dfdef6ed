//! Random text that cannot be guessed.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// 128 random bits as text.
pub(crate) fn text() -> String {
    encode(bytes::<16>())
}

/// Random bytes.
#[expect(
    clippy::expect_used,
    reason = "without randomness from the operating system, a service must not go on"
)]
pub(crate) fn bytes<const LENGTH: usize>() -> [u8; LENGTH] {
    let mut random = [0; LENGTH];
    getrandom::fill(&mut random).expect("the operating system has randomness");
    random
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
