//! The data folder: for its owner's eyes only, and with the key that seals secrets where the environment gives none.

use std::io::Write as _;
use std::path::Path;

use crate::app::{AppError, plain};
use crate::clock::Entropy;
use crate::config::SecretKey;

const KEY_FILE: &str = "secret.key";
/// What the embedded store calls its database: where it is and the key is not, the key was lost or stays elsewhere.
const DATABASE_FILE: &str = "patchbay.db";

const WRITABLE: &str = "data_dir (or --data-dir) names a folder that can be written to";

/// Makes the folder where it is missing, so that only its owner may enter.
pub fn prepare(folder: &Path) -> Result<(), AppError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|error| AppError::DataDir {
        path: folder.to_owned(),
        reason: format!("the data folder cannot be made: {}", plain(&error)),
        hint: Some(WRITABLE),
    })?;
    warn_if_open_to_others(folder);
    Ok(())
}

/// Fails where there is no database: opening it would make an empty one.
pub fn ensure_database(folder: &Path) -> Result<(), AppError> {
    if folder.join(DATABASE_FILE).exists() {
        return Ok(());
    }
    let reason = format!("holds no store ({DATABASE_FILE})");
    Err(AppError::DataDir {
        path: folder.to_owned(),
        reason,
        hint: Some("name the data folder of a gateway"),
    })
}

/// Where a folder keeps its key, if it has one.
pub fn key_file(folder: &Path) -> Option<std::path::PathBuf> {
    Some(folder.join(KEY_FILE)).filter(|path| path.exists())
}

/// The key that seals secrets: the one given, else the folder's own, made at the first start.
pub fn secret_key(
    folder: &Path,
    given: Option<&SecretKey>,
    entropy: &Entropy,
) -> Result<SecretKey, AppError> {
    if let Some(key) = given {
        return Ok(key.clone());
    }
    let path = folder.join(KEY_FILE);
    let fault = |reason: String, hint| AppError::DataDir { path: path.clone(), reason, hint };
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            warn_if_open_to_others(&path);
            SecretKey::from_base64(&text).ok_or_else(|| {
                fault("is no key: expected 32 bytes in base64".to_owned(), Some("restore it from a backup"))
            })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if folder.join(DATABASE_FILE).exists() {
                let hint = "give the key in PATCHBAY_SECRET_KEY, or restore the file from a backup";
                return Err(fault("is missing, and the store was sealed with it".to_owned(), Some(hint)));
            }
            let key = SecretKey::new(entropy.bytes());
            let draft = folder.join(format!("secret.key.{:032x}", u128::from_be_bytes(entropy.bytes())));
            match write_key(folder, &draft, &key) {
                Ok(true) => Ok(key),
                // Another process that starts on this folder was faster: its key is the one.
                Ok(false) => secret_key(folder, None, entropy),
                Err(error) => Err(fault(format!("cannot be written: {}", plain(&error)), Some(WRITABLE))),
            }
        }
        Err(error) => Err(fault(format!("cannot be read: {}", plain(&error)), None)),
    }
}

/// Written beside its place and linked there, so that a crash leaves no half a key and nobody's key is replaced; `false`
/// where there is one by now.
fn write_key(folder: &Path, draft: &Path, key: &SecretKey) -> std::io::Result<bool> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(draft)?;
    writeln!(file, "{}", *key.to_base64())?;
    file.sync_all()?;
    let linked = std::fs::hard_link(draft, folder.join(KEY_FILE));
    std::fs::remove_file(draft)?;
    std::fs::File::open(folder)?.sync_all()?;
    match linked {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

fn warn_if_open_to_others(path: &Path) {
    #[cfg(unix)]
    if let Ok(metadata) = std::fs::metadata(path)
        && std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0
    {
        tracing::warn!(path = %path.display(), "others may look into this; run chmod go= on it");
    }
    #[cfg(not(unix))]
    let _ = path;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    fn mode(path: &Path) -> u32 {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    #[cfg(unix)]
    fn the_first_start_makes_a_private_folder_and_key_and_the_next_reads_it() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a/b");
        prepare(&folder).unwrap();
        prepare(&folder).unwrap();
        assert_eq!(mode(&folder), 0o700);
        let key = secret_key(&folder, None, &Entropy::seeded(1)).unwrap();
        assert_eq!(mode(&folder.join(KEY_FILE)), 0o600);
        let again = secret_key(&folder, None, &Entropy::seeded(2)).unwrap();
        assert_eq!(key.reveal(), again.reveal());
        let given = SecretKey::new([9; 32]);
        assert_eq!(secret_key(&folder, Some(&given), &Entropy::seeded(3)).unwrap().reveal(), &[9; 32]);
    }

    #[test]
    fn processes_that_start_together_have_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let made: Vec<_> = std::thread::scope(|scope| {
            let start = || scope.spawn(|| secret_key(folder.path(), None, &Entropy::system()).unwrap());
            let starting: Vec<_> = (0..8).map(|_| start()).collect();
            starting.into_iter().map(|key| *key.join().unwrap().reveal()).collect()
        });
        assert!(made.iter().all(|key| *key == made[0]));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn a_lost_or_broken_key_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(DATABASE_FILE), "").unwrap();
        let lost = secret_key(folder.path(), None, &Entropy::seeded(1)).unwrap_err();
        assert!(lost.to_string().contains("is missing"), "{lost}");
        assert!(lost.hint().unwrap().contains("PATCHBAY_SECRET_KEY"));
        std::fs::write(folder.path().join(KEY_FILE), "short").unwrap();
        assert!(secret_key(folder.path(), None, &Entropy::seeded(1)).is_err());
    }
}
