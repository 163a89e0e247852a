//! The admin key: who holds it may do everything on this host.
//!
//! It lies in the state directory as `admin.key`, mode 0600, in the form of an AWS credentials
//! file, so that any AWS client can use it:
//!
//! ```text
//! AWS_SHARED_CREDENTIALS_FILE=<state directory>/admin.key aws lambda list-functions --endpoint-url …
//! ```
//!
//! The host creates it on its first start and never changes it after that: to replace the key,
//! delete the file and restart. The file appears whole or not at all, also after a crash: it is
//! written beside its place, synced and renamed. A file that others may read, or that is a
//! symbolic link (which somebody else may point elsewhere), is refused, not repaired: by then
//! the key may be known.

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustix::fs::{CWD, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

/// The key's file in the state directory.
pub const FILE_NAME: &str = "admin.key";

/// What no file of ours comes near; a person may have added profiles and comments.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// So that a key of this host is recognised where it turns up (AWS's begin with `AKIA`).
const KEY_ID_PREFIX: &str = "DUNLIN";
/// Random characters after the prefix, 5 bits each: twenty characters in all, as at AWS.
const KEY_ID_RANDOM_CHARS: usize = 14;
const KEY_ID_ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// 240 bits: 40 characters in base64, as at AWS (some clients insist on that length).
const SECRET_BYTES: usize = 30;

const PROFILE: &str = "default";
const ACCESS_KEY_ID: &str = "aws_access_key_id";
const SECRET_ACCESS_KEY: &str = "aws_secret_access_key";
const SESSION_TOKEN: &str = "aws_session_token";

/// An access key and its secret. `Debug` shows the secret to nobody.
#[derive(Clone)]
pub struct Credentials {
    access_key_id: String,
    secret_access_key: String,
}

/// Why there is no key to work with. Each text names the file, what is wrong, and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error(
        "there is no admin key at {path:?}: it is made by the first `dunlin up` with this state \
         directory"
    )]
    NotFound { path: PathBuf },
    #[error("the admin key {path:?} is a symbolic link: put the file itself there")]
    SymbolicLink { path: PathBuf },
    #[error("the admin key {path:?} is not a regular file: move it away and restart the host")]
    NotAFile { path: PathBuf },
    #[error(
        "the admin key {path:?} has mode {mode:04o}, but it may be open to its owner only (0600): \
         `chmod 600` it, or delete it and restart the host for a new one if somebody else may \
         have read it"
    )]
    Permissions { path: PathBuf, mode: u32 },
    #[error(
        "the admin key {path:?} is not a credentials file: {reason}. Repair it, or delete it and \
         restart the host for a new one"
    )]
    Malformed { path: PathBuf, reason: Malformed },
    #[error("cannot {operation} the admin key {path:?}")]
    Io {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("cannot make an admin key: the system gives no random numbers")]
    Random { source: getrandom::Error },
}

/// What is wrong in a credentials file, or with a pair of keys. Never repeats a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("it is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge,
    #[error("it is not UTF-8 text")]
    NotText,
    #[error("line {line} is neither `name = value`, nor a [section], nor a # comment")]
    Line { line: usize },
    #[error("its section [{PROFILE}] has no {name}")]
    Missing { name: &'static str },
    #[error("{ACCESS_KEY_ID} must be 16 to 128 letters, digits or underscores")]
    AccessKeyId,
    #[error("{SECRET_ACCESS_KEY} must be 16 to 256 printable characters without spaces")]
    SecretAccessKey,
    #[error("it has an {SESSION_TOKEN}, but this host has no session tokens")]
    SessionToken,
}

impl Credentials {
    /// Takes a pair of keys from elsewhere, as from the command line's environment.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if AWS clients would not accept them either.
    pub fn new(access_key_id: &str, secret_access_key: &str) -> Result<Self, Malformed> {
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if !(16..=128).contains(&access_key_id.len()) || !access_key_id.bytes().all(is_word) {
            return Err(Malformed::AccessKeyId);
        }
        if !(16..=256).contains(&secret_access_key.len())
            || !secret_access_key.bytes().all(|b| b.is_ascii_graphic())
        {
            return Err(Malformed::SecretAccessKey);
        }
        Ok(Self {
            access_key_id: access_key_id.to_owned(),
            secret_access_key: secret_access_key.to_owned(),
        })
    }

    /// Makes a new pair from the system's random source.
    ///
    /// # Errors
    ///
    /// [`CredentialsError::Random`] if it has none.
    pub fn generate() -> Result<Self, CredentialsError> {
        let mut access_key_id = KEY_ID_PREFIX.to_owned();
        access_key_id.push_str(&random_word::<KEY_ID_RANDOM_CHARS>()?);
        Ok(Self {
            access_key_id,
            secret_access_key: BASE64_URL_SAFE_NO_PAD.encode(random::<SECRET_BYTES>()?),
        })
    }

    /// The host's way: the key of this state directory, made if there is none yet. If another
    /// process makes one at the same time, both get the one that came first.
    ///
    /// Blocks on the disk.
    ///
    /// # Errors
    ///
    /// See [`CredentialsError`]. A file that is there but unfit is never overwritten.
    pub fn load_or_create(state_dir: &Path) -> Result<Self, CredentialsError> {
        let path = state_dir.join(FILE_NAME);
        match Self::load(&path) {
            Err(CredentialsError::NotFound { .. }) => {}
            found => return found,
        }
        let made = Self::generate()?;
        match made.create(state_dir, &path) {
            Ok(()) => Ok(made),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::load(&path),
            Err(source) => Err(CredentialsError::Io {
                operation: "write",
                path,
                source,
            }),
        }
    }

    /// The command line's way: reads a key that is there.
    ///
    /// Blocks on the disk.
    ///
    /// # Errors
    ///
    /// See [`CredentialsError`].
    pub fn load(path: &Path) -> Result<Self, CredentialsError> {
        let bytes = read(path)?;
        parse(&bytes).map_err(|reason| CredentialsError::Malformed {
            path: path.to_owned(),
            reason,
        })
    }

    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// For signatures only: never print it.
    pub fn secret_access_key(&self) -> &str {
        &self.secret_access_key
    }

    /// For public test vectors, whose key ids are shorter than any real one.
    #[cfg(test)]
    pub(super) fn unchecked(access_key_id: &str, secret_access_key: &str) -> Self {
        Self {
            access_key_id: access_key_id.to_owned(),
            secret_access_key: secret_access_key.to_owned(),
        }
    }

    /// Puts the file in its place, whole and durable, unless there is one.
    fn create(&self, state_dir: &Path, path: &Path) -> io::Result<()> {
        let suffix = random_word::<8>().map_err(io::Error::other)?;
        let beside = state_dir.join(format!("{FILE_NAME}.{suffix}.tmp"));
        let written = self.write_new(&beside).and_then(|()| {
            match rustix::fs::renameat_with(CWD, &beside, CWD, path, RenameFlags::NOREPLACE) {
                // Some file systems (NFS) know no exclusive rename; a hard link is as exclusive.
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    std::fs::hard_link(&beside, path)?;
                    std::fs::remove_file(&beside)
                }
                renamed => Ok(renamed?),
            }
        });
        if written.is_err() {
            // The first error counts; a file that stays behind holds a key that opens nothing.
            let _ = std::fs::remove_file(&beside);
        }
        written?;
        File::open(state_dir)?.sync_all()
    }

    fn write_new(&self, path: &Path) -> io::Result<()> {
        let owner_only = Mode::RUSR | Mode::WUSR;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::open(path, flags, owner_only)?);
        // The umask may have taken away more than asked.
        rustix::fs::fchmod(&file, owner_only)?;
        let text = format!(
            "# The admin key of this dunlin host: who has it may do everything here.\n\
             # Any AWS client can use it: AWS_SHARED_CREDENTIALS_FILE=<this file>\n\
             # To replace it, delete this file and restart the host.\n\
             [{PROFILE}]\n\
             {ACCESS_KEY_ID} = {}\n\
             {SECRET_ACCESS_KEY} = {}\n",
            self.access_key_id, self.secret_access_key
        );
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key_id", &self.access_key_id)
            .field("secret_access_key", &"<redacted>")
            .finish()
    }
}

/// Reads the file, all checks on the descriptor that is read.
fn read(path: &Path) -> Result<Vec<u8>, CredentialsError> {
    let path = path.to_owned();
    // NONBLOCK: to open a FIFO would wait for a writer. It means nothing to a regular file.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(&path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Err(CredentialsError::NotFound { path }),
        Err(Errno::LOOP) => return Err(CredentialsError::SymbolicLink { path }),
        Err(error) => {
            return Err(CredentialsError::Io {
                operation: "open",
                path,
                source: error.into(),
            });
        }
    };
    let stat = match rustix::fs::fstat(&file) {
        Ok(stat) => stat,
        Err(error) => {
            return Err(CredentialsError::Io {
                operation: "examine",
                path,
                source: error.into(),
            });
        }
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(CredentialsError::NotAFile { path });
    }
    let mode = stat.st_mode & 0o7777;
    if mode & !0o600 != 0 {
        return Err(CredentialsError::Permissions { path, mode });
    }
    let mut bytes = Vec::new();
    match file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(source) => Err(CredentialsError::Io {
            operation: "read",
            path,
            source,
        }),
    }
}

/// Reads the profile `default` of an AWS credentials file. As AWS clients do: comments begin a
/// line with `#` or `;`, names are of any case, spaces do not matter, other names and profiles
/// are passed over, and of two values the last counts.
fn parse(bytes: &[u8]) -> Result<Credentials, Malformed> {
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Malformed::TooLarge);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed::NotText)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);

    let (mut access_key_id, mut secret_access_key) = (None, None);
    let mut in_profile = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let malformed = Malformed::Line { line: index + 1 };
        if let Some(rest) = line.strip_prefix('[') {
            let (name, after) = rest.split_once(']').ok_or_else(|| malformed.clone())?;
            let after = after.trim_start();
            if !(after.is_empty() || after.starts_with(['#', ';'])) {
                return Err(malformed);
            }
            in_profile = name.trim() == PROFILE;
            continue;
        }
        let (name, value) = line.split_once('=').ok_or(malformed)?;
        if !in_profile {
            continue;
        }
        match name.trim().to_ascii_lowercase().as_str() {
            ACCESS_KEY_ID => access_key_id = Some(value.trim()),
            SECRET_ACCESS_KEY => secret_access_key = Some(value.trim()),
            SESSION_TOKEN => return Err(Malformed::SessionToken),
            _ => {}
        }
    }
    let missing = |name| Malformed::Missing { name };
    Credentials::new(
        access_key_id.ok_or_else(|| missing(ACCESS_KEY_ID))?,
        secret_access_key.ok_or_else(|| missing(SECRET_ACCESS_KEY))?,
    )
}

fn random<const N: usize>() -> Result<[u8; N], CredentialsError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|source| CredentialsError::Random { source })?;
    Ok(bytes)
}

/// `N` characters of 5 random bits each.
fn random_word<const N: usize>() -> Result<String, CredentialsError> {
    let bytes = random::<N>()?;
    Ok(bytes
        .iter()
        .map(|byte| char::from(KEY_ID_ALPHABET[usize::from(byte & 31)]))
        .collect())
}
