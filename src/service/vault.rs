//! Seals secrets for the store and opens them again.
//!
//! XChaCha20-Poly1305 with a fresh random nonce for each secret. A sealed text is base64 of one version byte, the nonce
//! and the ciphertext. The owner's id is bound to it as associated data, so that a sealed secret copied into another
//! record does not open.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use crate::clock::Entropy;
use crate::domain::secret::{Sealed, Secret};

const VERSION: u8 = 1;
const NONCE_BYTES: usize = 24;

/// Why a secret could not be sealed or opened. None of them shows anything of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// The key is another one than it was sealed with, it was sealed for another owner, or it was changed.
    #[error(
        "a stored secret can't be opened: the secret key is not the one it was sealed with, or it was changed"
    )]
    Sealed,
    /// It has no form that this program writes.
    #[error("a stored secret has an unknown form; was it written by a newer version?")]
    Form,
    /// It is too long.
    #[error("the secret is too long to be sealed")]
    TooLong,
}

/// Holds the key. `Debug` shows nothing of it.
pub struct Vault {
    cipher: XChaCha20Poly1305,
    entropy: Entropy,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault")
    }
}

impl Vault {
    /// A vault with this key.
    pub fn new(key: &[u8; 32], entropy: Entropy) -> Self {
        Self { cipher: XChaCha20Poly1305::new(key.into()), entropy }
    }

    /// Seals `secret` for `owner`.
    pub fn seal(&self, owner: &str, secret: &Secret) -> Result<Sealed, VaultError> {
        let nonce: [u8; NONCE_BYTES] = self.entropy.bytes();
        let payload = Payload { msg: secret.reveal().as_bytes(), aad: owner.as_bytes() };
        let ciphertext =
            self.cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| VaultError::TooLong)?;
        let mut bytes = Vec::with_capacity(1 + NONCE_BYTES + ciphertext.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&ciphertext);
        Ok(Sealed(STANDARD.encode(bytes)))
    }

    /// Opens what was sealed for `owner`.
    pub fn open(&self, owner: &str, sealed: &Sealed) -> Result<Secret, VaultError> {
        let bytes = STANDARD.decode(&sealed.0).map_err(|_| VaultError::Form)?;
        let (&VERSION, rest) = bytes.split_first().ok_or(VaultError::Form)? else {
            return Err(VaultError::Form);
        };
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(VaultError::Form)?;
        let payload = Payload { msg: ciphertext, aad: owner.as_bytes() };
        let clear = self
            .cipher
            .decrypt(&XNonce::from(*nonce), payload)
            .map(Zeroizing::new)
            .map_err(|_| VaultError::Sealed)?;
        std::str::from_utf8(&clear).map(Secret::new).map_err(|_| VaultError::Form)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(key: u8) -> Vault {
        Vault::new(&[key; 32], Entropy::seeded(1))
    }

    #[test]
    fn what_was_sealed_opens_for_its_owner_with_its_key_only() {
        let secret = Secret::new("whsec_abc");
        let sealed = vault(1).seal("con_1", &secret).unwrap();
        assert_eq!(vault(1).open("con_1", &sealed), Ok(secret));
        assert_eq!(vault(1).open("con_2", &sealed), Err(VaultError::Sealed));
        assert_eq!(vault(2).open("con_1", &sealed), Err(VaultError::Sealed));
        assert!(!sealed.0.contains("abc"));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let vault = vault(1);
        let sealed = vault.seal("con_1", &Secret::new("secret")).unwrap();
        let bytes = STANDARD.decode(&sealed.0).unwrap();
        for index in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[index] ^= 1;
            assert!(vault.open("con_1", &Sealed(STANDARD.encode(changed))).is_err(), "byte {index}");
        }
        for text in ["", "AQ==", "not base64!"] {
            assert_eq!(vault.open("con_1", &Sealed(text.to_owned())), Err(VaultError::Form), "{text}");
        }
    }

    #[test]
    fn the_same_secret_is_never_sealed_alike() {
        let vault = vault(1);
        let secret = Secret::new("secret");
        assert_ne!(vault.seal("con_1", &secret).unwrap(), vault.seal("con_1", &secret).unwrap());
    }
}
