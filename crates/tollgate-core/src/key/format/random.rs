//! Random characters, from the operating system.

use std::fmt;

use zeroize::Zeroizing;

use super::base62;

/// Appends `length` uniformly distributed characters. `fill` fills a buffer with random bytes.
pub(super) fn push_random(
    secret: &mut String,
    length: usize,
    mut fill: impl FnMut(&mut [u8]) -> Result<(), getrandom::Error>,
) -> Result<(), RandomnessUnavailable> {
    // The largest multiple of 62 that fits a byte. Larger bytes are dropped, because they would make the first digits
    // more likely.
    const UNIFORM: u8 = 62 * 4;
    let mut bytes = Zeroizing::new([0; 64]);
    let complete = secret.len() + length;
    while secret.len() < complete {
        fill(bytes.as_mut_slice()).map_err(RandomnessUnavailable)?;
        let digits =
            bytes.iter().filter(|&&byte| byte < UNIFORM).map(|byte| char::from(base62::digit(byte % 62)));
        secret.extend(digits.take(complete - secret.len()));
    }
    Ok(())
}

/// The operating system returned no random bytes, so no key was generated.
#[derive(Clone, Debug)]
pub struct RandomnessUnavailable(getrandom::Error);

impl fmt::Display for RandomnessUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no key was generated: the operating system returned no random bytes; try again ({})",
            self.0
        )
    }
}

impl std::error::Error for RandomnessUnavailable {}
