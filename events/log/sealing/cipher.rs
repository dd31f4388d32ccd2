//! One payload under one key: XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03). The home of chacha20poly1305.
//!
//! `| nonce: 24 | ciphertext, as long as the payload | tag: 16 |`. Bound without being encrypted: kind, version and flags
//! of the event, and its envelope, in which the key's number, the stream and the actor stand. Its position is not: it is
//! unknown when the payload is encrypted, and the log's tree binds it.

use chacha20poly1305::aead::AeadInOut as _;
use chacha20poly1305::{Key, KeyInit as _, Tag as Mac, XChaCha20Poly1305, XNonce};

use crate::log::chain::Tag;

/// Length of a key.
pub(crate) const KEY_BYTES: usize = 32;
/// Length of a nonce.
pub(crate) const NONCE_BYTES: usize = 24;
const MAC_BYTES: usize = 16;
/// What a sealed payload takes beyond the payload.
pub(crate) const OVERHEAD_BYTES: usize = NONCE_BYTES + MAC_BYTES;

/// What is bound: `| kind | version | flags: u16 LE | envelope |`.
fn bound(tag: Tag, envelope: &[u8]) -> Vec<u8> {
    [tag.bytes().as_slice(), envelope].concat()
}

/// Encrypts what lies behind `start`: there is room for a nonce, then the payload to the end. `bytes` grows by the tag.
pub(crate) fn seal(
    secret: &[u8; KEY_BYTES],
    tag: Tag,
    nonce: &[u8; NONCE_BYTES],
    bytes: &mut Vec<u8>,
    (envelope, start): (usize, usize),
) {
    let associated = bound(tag, &bytes[envelope..start]);
    bytes[start..start + NONCE_BYTES].copy_from_slice(nonce);
    let cipher = XChaCha20Poly1305::new(&Key::from(*secret));
    let payload = &mut bytes[start + NONCE_BYTES..];
    #[expect(clippy::expect_used, reason = "a payload is far below the 256 GiB that one nonce is good for")]
    let mac = cipher
        .encrypt_inout_detached(&XNonce::from(*nonce), &associated, payload.into())
        .expect("a payload that is short enough");
    bytes.extend_from_slice(&mac);
}

/// The payload again; `None` if it does not open under this key.
pub(crate) fn unseal(secret: &[u8; KEY_BYTES], tag: Tag, envelope: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, rest) = sealed.split_first_chunk::<NONCE_BYTES>()?;
    let (payload, mac) = rest.split_last_chunk::<MAC_BYTES>()?;
    let mut payload = payload.to_vec();
    let cipher = XChaCha20Poly1305::new(&Key::from(*secret));
    cipher
        .decrypt_inout_detached(
            &XNonce::from(*nonce),
            &bound(tag, envelope),
            payload.as_mut_slice().into(),
            &Mac::from(*mac),
        )
        .ok()?;
    Some(payload)
}

#[cfg(test)]
mod tests {
    use super::{NONCE_BYTES, OVERHEAD_BYTES, seal, unseal};
    use crate::log::chain::Tag;

    const TAG: Tag = Tag { kind: 4, version: 1, flags: 2 };

    fn sealed(payload: &[u8]) -> (Vec<u8>, usize) {
        let mut bytes = b"before".to_vec();
        let envelope = bytes.len();
        bytes.extend_from_slice(b"envelope");
        let start = bytes.len();
        bytes.extend_from_slice(&[0; NONCE_BYTES]);
        bytes.extend_from_slice(payload);
        seal(&[7; 32], TAG, &[9; NONCE_BYTES], &mut bytes, (envelope, start));
        assert_eq!(bytes.len(), start + payload.len() + OVERHEAD_BYTES);
        (bytes, start)
    }

    #[test]
    fn a_payload_opens_under_its_key_in_its_envelope_alone_and_no_bit_can_change_unseen() {
        for payload in [&b""[..], b"plans for tea"] {
            let (bytes, start) = sealed(payload);
            let open =
                |key: u8, tag, envelope: &[u8], sealed: &[u8]| unseal(&[key; 32], tag, envelope, sealed);
            let whole = &bytes[start..];
            assert!(payload.is_empty() || !whole.windows(payload.len()).any(|part| part == payload));
            assert_eq!(open(7, TAG, b"envelope", whole).as_deref(), Some(payload));
            assert_eq!(open(8, TAG, b"envelope", whole), None);
            assert_eq!(open(7, Tag { kind: 5, ..TAG }, b"envelope", whole), None);
            assert_eq!(open(7, Tag { flags: 3, ..TAG }, b"envelope", whole), None);
            assert_eq!(open(7, TAG, b"envelopf", whole), None);
            for bit in 0..whole.len() * 8 {
                let mut flipped = whole.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(open(7, TAG, b"envelope", &flipped), None, "bit {bit}");
            }
            for len in 0..whole.len() {
                assert_eq!(open(7, TAG, b"envelope", &whole[..len]), None, "cut to {len}");
            }
        }
    }
}
