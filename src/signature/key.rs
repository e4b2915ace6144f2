//! Secrets and what they are decoded to.

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, general_purpose};
use hmac::{Hmac, KeyInit, Mac};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Longest secret, as text; longer ones are a mistake.
const MAX_SECRET_BYTES: usize = 1_024;

/// Standard Webhooks 1.0: "Symmetric keys: between 24 bytes and 64 bytes".
const WHSEC_PREFIX: &str = "whsec_";
const WHSEC_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Standard Webhooks 1.0, asymmetric keys: base64 of the 32 bytes of a seed, which the public key may follow, and of a
/// public key.
const WHSK_PREFIX: &str = "whsk_";
const WHPK_PREFIX: &str = "whpk_";
const ED25519_BYTES: usize = 32;

/// Takes base64 with or without its padding, as people cut it off when they copy; writes it with.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    general_purpose::PAD.with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How a secret's text becomes the HMAC key's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyForm {
    Utf8,
    Whsec,
    Base64,
    Hex,
}

impl KeyForm {
    /// The key's bytes, or why there are none; the reason never shows the secret.
    pub(super) fn decode(self, secret: &str) -> Result<Zeroizing<Vec<u8>>, String> {
        if secret.is_empty() {
            return Err("the secret is empty".to_owned());
        }
        if secret.len() > MAX_SECRET_BYTES {
            return Err(format!("the secret is longer than {MAX_SECRET_BYTES} bytes"));
        }
        let bytes = match self {
            Self::Utf8 => Ok(secret.as_bytes().to_vec()),
            Self::Whsec => {
                let encoded = secret
                    .strip_prefix(WHSEC_PREFIX)
                    .ok_or_else(|| format!("the secret must start with \"{WHSEC_PREFIX}\""))?;
                BASE64
                    .decode(encoded)
                    .map_err(|_| format!("the secret must be \"{WHSEC_PREFIX}\" and then base64"))
            }
            Self::Base64 => BASE64.decode(secret).map_err(|_| "the secret must be base64".to_owned()),
            Self::Hex => {
                hex::decode(secret).map_err(|_| "the secret must be hex digits, two a byte".to_owned())
            }
        }
        .map(Zeroizing::new)?;
        if self == Self::Whsec && !WHSEC_BYTES.contains(&bytes.len()) {
            let (least, most) = (WHSEC_BYTES.start(), WHSEC_BYTES.end());
            return Err(format!("the secret holds {} bytes; {least} to {most} are allowed", bytes.len()));
        }
        Ok(bytes)
    }

    /// A secret of this form that holds `random`.
    pub(super) fn encode(self, random: [u8; 32]) -> String {
        match self {
            Self::Utf8 | Self::Hex => hex::encode(random),
            Self::Whsec => format!("{WHSEC_PREFIX}{}", BASE64.encode(random)),
            Self::Base64 => BASE64.encode(random),
        }
    }
}

/// Why `secret` can't be sent in a header as it is; `None` when it can.
pub(super) fn header_fault(secret: &str) -> Option<String> {
    if secret.is_empty() {
        return Some("the secret is empty".to_owned());
    }
    if secret.len() > MAX_SECRET_BYTES {
        return Some(format!("the secret is longer than {MAX_SECRET_BYTES} bytes"));
    }
    if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some("the secret is sent in a header, so it must be ASCII without spaces".to_owned());
    }
    None
}

/// A hash function to key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    Sha1,
    Sha256,
    Sha512,
}

/// A decoded secret, ready for use. Wiped from memory when dropped; its Debug shows nothing of it.
pub struct SigningKey(Material);

enum Material {
    Text(Zeroizing<String>),
    // Boxed, so that a key costs the same to move whatever its hash.
    Sha1(Box<Hmac<Sha1>>),
    Sha256(Box<Hmac<Sha256>>),
    Sha512(Box<Hmac<Sha512>>),
    // The seed rather than the pair that is made of it, because a pair would not be wiped.
    Ed25519(Zeroizing<[u8; ED25519_BYTES]>),
    Ed25519Public([u8; ED25519_BYTES]),
}

/// Whether `secret` is an ed25519 key rather than an HMAC's.
pub(super) fn is_ed25519(secret: &str) -> bool {
    secret.starts_with(WHSK_PREFIX) || secret.starts_with(WHPK_PREFIX)
}

impl SigningKey {
    pub(super) fn text(secret: &str) -> Self {
        Self(Material::Text(Zeroizing::new(secret.to_owned())))
    }

    /// An HMAC whose key block is already taken in, to be cloned for each message.
    pub(super) fn hmac(hash: Hash, key: &[u8]) -> Option<Self> {
        let material = match hash {
            Hash::Sha1 => Material::Sha1(Box::new(Hmac::new_from_slice(key).ok()?)),
            Hash::Sha256 => Material::Sha256(Box::new(Hmac::new_from_slice(key).ok()?)),
            Hash::Sha512 => Material::Sha512(Box::new(Hmac::new_from_slice(key).ok()?)),
        };
        Some(Self(material))
    }

    /// An ed25519 key out of its `whsk_` or `whpk_` text; the reason never shows it.
    pub(super) fn ed25519(text: &str) -> Result<Self, String> {
        let is_private = text.starts_with(WHSK_PREFIX);
        let prefix = if is_private { WHSK_PREFIX } else { WHPK_PREFIX };
        let wrong = || format!("the key must be \"{prefix}\" and then base64 of {ED25519_BYTES} bytes");
        let encoded = text.strip_prefix(prefix).filter(|encoded| encoded.len() <= MAX_SECRET_BYTES);
        let bytes = Zeroizing::new(BASE64.decode(encoded.ok_or_else(wrong)?).map_err(|_| wrong())?);
        let (first, rest) = bytes.split_first_chunk::<ED25519_BYTES>().ok_or_else(wrong)?;
        if !is_private {
            return if rest.is_empty() { Ok(Self(Material::Ed25519Public(*first))) } else { Err(wrong()) };
        }
        let pair = Ed25519KeyPair::from_seed_unchecked(first).map_err(|_| wrong())?;
        if !rest.is_empty() && rest != pair.public_key().as_ref() {
            return Err("the public half of the key is not the private half's".to_owned());
        }
        Ok(Self(Material::Ed25519(Zeroizing::new(*first))))
    }

    /// Whether it can only verify.
    pub(super) fn is_public(&self) -> bool {
        matches!(self.0, Material::Ed25519Public(_))
    }

    /// The ed25519 signature of `message`, which is only made for such a key; `None` for another kind of key, or one that can
    /// only verify.
    pub(super) fn ed25519_sign(&self, message: impl FnOnce() -> Vec<u8>) -> Option<Digest> {
        let Material::Ed25519(seed) = &self.0 else { return None };
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed[..]).ok()?;
        let signature = pair.sign(&message());
        let mut bytes = [0; MAX_DIGEST_BYTES];
        let len = signature.as_ref().len();
        bytes.get_mut(..len)?.copy_from_slice(signature.as_ref());
        Some(Digest { bytes, len })
    }

    /// Whether `signature` is this key's over `message`; `None` for another kind of key.
    pub(super) fn ed25519_fits(&self, message: &[u8], signature: &Digest) -> Option<bool> {
        let public = match &self.0 {
            Material::Ed25519Public(public) => *public,
            Material::Ed25519(seed) => {
                let pair = Ed25519KeyPair::from_seed_unchecked(&seed[..]).ok()?;
                let mut public = [0; ED25519_BYTES];
                public.copy_from_slice(pair.public_key().as_ref());
                public
            }
            _ => return None,
        };
        Some(UnparsedPublicKey::new(&ED25519, public).verify(message, signature.as_slice()).is_ok())
    }

    /// The secret itself, where it is sent as it is.
    pub(super) fn secret(&self) -> Option<&str> {
        match &self.0 {
            Material::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The HMAC of the pieces one after the other; `None` for a key of a shared secret.
    pub(super) fn digest<'p>(&self, pieces: impl Iterator<Item = &'p [u8]>) -> Option<Digest> {
        match &self.0 {
            Material::Text(_) | Material::Ed25519(_) | Material::Ed25519Public(_) => None,
            Material::Sha1(keyed) => Some(Digest::of(keyed.as_ref(), pieces)),
            Material::Sha256(keyed) => Some(Digest::of(keyed.as_ref(), pieces)),
            Material::Sha512(keyed) => Some(Digest::of(keyed.as_ref(), pieces)),
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// Bytes of the longest digest, SHA-512's, and of an ed25519 signature.
const MAX_DIGEST_BYTES: usize = 64;

/// A digest on the stack.
#[derive(Clone, Copy)]
pub(super) struct Digest {
    bytes: [u8; MAX_DIGEST_BYTES],
    len: usize,
}

impl Digest {
    fn of<'p, M: Mac + Clone>(keyed: &M, pieces: impl Iterator<Item = &'p [u8]>) -> Self {
        let mut mac = keyed.clone();
        pieces.for_each(|piece| mac.update(piece));
        let output = mac.finalize().into_bytes();
        let mut bytes = [0; MAX_DIGEST_BYTES];
        bytes[..output.len()].copy_from_slice(&output);
        Self { bytes, len: output.len() }
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Equality in constant time.
    pub(super) fn ct_eq(&self, other: &Self) -> subtle::Choice {
        self.as_slice().ct_eq(other.as_slice())
    }
}

/// How a digest is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Hex,
    Base64,
}

impl Encoding {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hex => "hex",
            Self::Base64 => "base64",
        }
    }

    /// Appends the digest's text.
    pub(super) fn write(self, digest: &Digest, out: &mut String) {
        // Both alphabets fit: hex takes two characters a byte, base64 fewer.
        let mut buffer = [0; 2 * MAX_DIGEST_BYTES];
        let bytes = digest.as_slice();
        let len = match self {
            Self::Hex => {
                hex::encode_to_slice(bytes, &mut buffer[..2 * bytes.len()]).map_or(0, |()| 2 * bytes.len())
            }
            Self::Base64 => BASE64.encode_slice(bytes, &mut buffer).unwrap_or(0),
        };
        out.push_str(std::str::from_utf8(&buffer[..len]).unwrap_or_default());
    }

    /// Reads a digest of any length back; `None` when the text is no such encoding. Hex may be of either case.
    pub(super) fn read(self, text: &str) -> Option<Digest> {
        let mut bytes = [0; MAX_DIGEST_BYTES];
        let len = match self {
            Self::Hex => {
                let len = text.len() / 2;
                hex::decode_to_slice(text, bytes.get_mut(..len)?).ok()?;
                len
            }
            Self::Base64 => BASE64.decode_slice(text, &mut bytes).ok()?,
        };
        Some(Digest { bytes, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_does_not_fit_is_told_without_showing_it() {
        for (form, secret, part) in [
            (KeyForm::Utf8, "", "empty"),
            (KeyForm::Whsec, "C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "start with \"whsec_\""),
            (KeyForm::Whsec, "whsec_C2FV sBQI", "then base64"),
            (KeyForm::Whsec, "whsec_C2FVsBQI", "holds 6 bytes; 24 to 64"),
            (KeyForm::Base64, "C2FV*", "must be base64"),
            (KeyForm::Hex, "abc", "hex digits"),
        ] {
            let reason = form.decode(secret).unwrap_err();
            assert!(reason.contains(part), "{form:?}: {reason}");
            assert!(secret.is_empty() || !reason.contains(secret), "{reason}");
        }
        assert!(KeyForm::Utf8.decode(&"x".repeat(MAX_SECRET_BYTES + 1)).is_err());
        for secret in ["", "a b", "a\r\nX-Evil: 1", "é", "\u{7f}"] {
            assert!(header_fault(secret).is_some(), "{secret:?}");
        }
    }

    #[test]
    fn made_secrets_decode_to_their_bytes() {
        for form in [KeyForm::Whsec, KeyForm::Base64, KeyForm::Hex] {
            assert_eq!(form.decode(&form.encode([0xfb; 32])).unwrap().as_slice(), [0xfb; 32]);
        }
        assert_eq!(header_fault(&KeyForm::Utf8.encode([0xfb; 32])), None);
    }

    #[test]
    fn hash_states_are_wiped_when_dropped() {
        // A keyed HMAC is two states of its hash and a buffer, which wipe themselves under the same feature.
        fn wiped<T: zeroize::ZeroizeOnDrop>() {}
        wiped::<Sha1>();
        wiped::<Sha256>();
        wiped::<Sha512>();
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", SigningKey::text("hunter2")), "SigningKey(..)");
    }
}
