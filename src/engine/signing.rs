//! The key that signs the log's heads: made at the first start, kept in a file that only its owner may read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use caxton_events::log::Signer;

/// Name of the key's file in the data directory: 64 hexadecimal digits.
pub const KEY_FILE: &str = "signing.key";
const SECRET_BYTES: usize = 32;
const NEW_FILE: &str = "signing.key.new";
/// What nobody but the owner may have.
const FOREIGN_MODE: u32 = 0o077;

/// Why the log's heads cannot be signed. The key is never replaced by guess.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    /// There is none.
    #[error("there is no {}; it is made when the server starts", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// Others than its owner may read or write the file.
    #[error(
        "{} may be used by others than its owner (mode {mode:04o}): run chmod 600 on it, and if somebody may have read \
         it, move it away, so that the next start makes another",
        path.display()
    )]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It holds no key.
    #[error("{} holds no key of 64 hexadecimal digits; restore it from a backup", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The system gave no random numbers.
    #[error("could not draw a key")]
    Random(#[source] getrandom::Error),
    /// The file cannot be read or made.
    #[error("could not use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The signer of the log in `data_dir`; makes its key when there is none.
///
/// # Errors
///
/// [`SigningKeyError`].
pub(super) fn open_or_create(data_dir: &Path, log_id: [u8; 16]) -> Result<Signer, SigningKeyError> {
    match open(data_dir, log_id) {
        Err(SigningKeyError::Missing { path }) => {
            let mut secret = [0; SECRET_BYTES];
            getrandom::fill(&mut secret).map_err(SigningKeyError::Random)?;
            create(data_dir, &secret).map_err(|source| SigningKeyError::Io { path, source })?;
            let signer = Signer::new(log_id, &secret);
            tracing::info!(public_key = %signer.public_key(), "made a key that signs the log's heads");
            Ok(signer)
        }
        opened => opened,
    }
}

/// The signer of the log in `data_dir`, which must have its key.
///
/// # Errors
///
/// [`SigningKeyError`].
pub fn open(data_dir: &Path, log_id: [u8; 16]) -> Result<Signer, SigningKeyError> {
    let path = data_dir.join(KEY_FILE);
    let failed = |source: io::Error| {
        if source.kind() == io::ErrorKind::NotFound {
            SigningKeyError::Missing { path: path.clone() }
        } else {
            SigningKeyError::Io { path: path.clone(), source }
        }
    };
    let file = File::open(&path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & FOREIGN_MODE != 0 {
        return Err(SigningKeyError::Permissions { path, mode });
    }
    let mut text = Vec::with_capacity(2 * SECRET_BYTES + 1);
    file.take(2 * SECRET_BYTES as u64 + 2).read_to_end(&mut text).map_err(failed)?;
    let secret = parse(&text).ok_or_else(|| SigningKeyError::Malformed { path: path.clone() })?;
    Ok(Signer::new(log_id, &secret))
}

/// Writes the key under another name first: a file of that name is whole.
fn create(data_dir: &Path, secret: &[u8; SECRET_BYTES]) -> io::Result<()> {
    let new = data_dir.join(NEW_FILE);
    // What a start that was cut short left behind may have other permissions.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => (),
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    for byte in secret {
        write!(file, "{byte:02x}")?;
    }
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&new, data_dir.join(KEY_FILE))?;
    File::open(data_dir)?.sync_all()
}

fn parse(text: &[u8]) -> Option<[u8; SECRET_BYTES]> {
    let digits = text.strip_suffix(b"\n").unwrap_or(text);
    let mut secret = [0; SECRET_BYTES];
    if digits.len() != 2 * SECRET_BYTES || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, pair) in secret.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(secret)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::{KEY_FILE, SigningKeyError, open, open_or_create};

    #[test]
    fn a_key_is_made_once_and_only_its_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(open(dir.path(), [7; 16]), Err(SigningKeyError::Missing { .. })));
        fs::write(dir.path().join("signing.key.new"), "half").unwrap();
        let made = open_or_create(dir.path(), [7; 16]).unwrap().public_key();
        let mode = fs::metadata(dir.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(open_or_create(dir.path(), [7; 16]).unwrap().public_key(), made);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(open_or_create(other.path(), [7; 16]).unwrap().public_key(), made);
    }

    #[test]
    fn a_key_that_others_may_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        open_or_create(dir.path(), [7; 16]).unwrap();
        for mode in [0o644, 0o640, 0o602, 0o610] {
            fs::set_permissions(dir.path().join(KEY_FILE), Permissions::from_mode(mode)).unwrap();
            let error = open_or_create(dir.path(), [7; 16]).unwrap_err().to_string();
            assert!(error.contains(&format!("(mode {mode:04o}): run chmod 600 on it")), "{error}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        open_or_create(dir.path(), [7; 16]).unwrap();
        let path = dir.path().join(KEY_FILE);
        let key = fs::read_to_string(&path).unwrap();
        for text in
            ["", "\n", &key[1..], &format!("{key}\n"), &format!("0{key}"), &key.replace(&key[..2], "0x")]
        {
            fs::write(&path, text).unwrap();
            let opened = open_or_create(dir.path(), [7; 16]);
            assert!(matches!(opened, Err(SigningKeyError::Malformed { .. })), "{text:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
