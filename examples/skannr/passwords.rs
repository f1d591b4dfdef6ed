//! Passwords: Argon2 hashes with the parameters that OWASP recommends, which are the defaults of the crate `argon2`.

use std::{error::Error, sync::Arc};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use tollgate::denial::Unavailable;

use crate::hashing::Hashing;

/// In characters. There is no other rule: length is what makes a password strong.
pub(crate) const MIN_LENGTH: usize = 8;

/// Hashes and checks passwords. Clones share their bounds.
#[derive(Clone)]
pub(crate) struct Passwords {
    hashing: Hashing,
    /// The hash of a random password, which is checked where there is no hash.
    of_no_account: Arc<str>,
}

impl Passwords {
    pub(crate) fn new() -> Result<Self, Box<dyn Error>> {
        let mut random = [0; 32];
        getrandom::fill(&mut random)?;
        let of_no_account = Argon2::default().hash_password(&random).map_err(|error| error.to_string())?;
        Ok(Self { hashing: Hashing::on_half_of_the_cores(), of_no_account: of_no_account.to_string().into() })
    }

    /// The hash of a new password, as a PHC string with its salt and parameters.
    pub(crate) async fn hash(&self, password: String) -> Result<String, Unavailable> {
        let hash = move || Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string());
        let hash = self.hashing.run(hash).await?;
        hash.map_err(|error| Unavailable::new(format!("cannot hash a password: {error}")))
    }

    /// Whether `password` matches `hash`. Without a hash, because there is no such account, it does not, and the answer takes as
    /// long: otherwise the time would show which e-mails have an account.
    pub(crate) async fn verify(&self, password: String, hash: Option<&str>) -> Result<bool, Unavailable> {
        let checked = hash.unwrap_or(&self.of_no_account).to_owned();
        let matches = move || {
            let Ok(hash) = PasswordHash::new(&checked) else { return false };
            Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
        };
        Ok(self.hashing.run(matches).await? && hash.is_some())
    }
}
