//! Files that are whole or absent: written beside, synced, renamed; sealed with a hash that is verified before use.
//!
//! ```text
//! magic: 8 B | content | BLAKE3 of magic and content: 32 B
//! ```

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// Bytes read or written at once.
const BUFFER_BYTES: usize = 1 << 20;
const SEAL_BYTES: u64 = 32;

/// Why a file was not written or not used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The medium refused.
    #[error("could not {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Not what was written: cut, changed, or of another program. It is rebuilt.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How it shows.
        what: &'static str,
    },
}

/// A stream that hashes what passes.
pub(crate) struct Hashed<S> {
    stream: S,
    hasher: blake3::Hasher,
}

impl<S: Write> Write for Hashed<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.stream.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl<S: Read> Read for Hashed<S> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(bytes)?;
        self.hasher.update(&bytes[..read]);
        Ok(read)
    }
}

/// Where the content of a sealed file goes.
pub(crate) type Sink = BufWriter<Hashed<File>>;
/// Where it comes from.
pub(crate) type Content = BufReader<Hashed<io::Take<File>>>;

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_path_buf();
    move |source| FileError::Io { action, path, source }
}

/// Writes what `content` writes to `path`: the old file stays until the new one is on disk.
pub(crate) fn write_sealed(
    path: &Path,
    magic: [u8; 8],
    content: impl FnOnce(&mut Sink) -> io::Result<()>,
) -> Result<(), FileError> {
    let beside = path.with_extension("tmp");
    let file = File::create(&beside).map_err(io_error("create", &beside))?;
    let hashed = Hashed { stream: file, hasher: blake3::Hasher::new() };
    let mut sink = BufWriter::with_capacity(BUFFER_BYTES, hashed);
    let written = sink.write_all(&magic).and_then(|()| content(&mut sink)).and_then(|()| sink.flush());
    let sealed = written.and_then(|()| {
        let Hashed { stream, hasher } = sink.get_mut();
        stream.write_all(hasher.finalize().as_bytes())?;
        stream.sync_all()
    });
    if let Err(source) = sealed {
        // What is left of it is of no use; that it cannot be removed either changes nothing.
        let _ = fs::remove_file(&beside);
        return Err(io_error("write", &beside)(source));
    }
    fs::rename(&beside, path).map_err(io_error("put in place", path))?;
    let dir = path.parent().unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", dir))
}

/// Removes a file, if there is one.
pub(crate) fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(source)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Gives `content` the bytes of `path` to read and returns its result if they are what was written.
/// `None` when there is no such file.
///
/// The seal is verified at the end: `content` sees unverified bytes, must bear any, and its result is dropped if the
/// seal is broken. It also gets the number of bytes there are.
pub(crate) fn read_sealed<T>(
    path: &Path,
    magic: [u8; 8],
    content: impl FnOnce(&mut Content, u64) -> io::Result<T>,
) -> Result<Option<T>, FileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io_error("open", path)(source)),
    };
    let damaged = |what| FileError::Damaged { path: path.to_path_buf(), what };
    let len = file.metadata().map_err(io_error("measure", path))?.len();
    let len = len.checked_sub(SEAL_BYTES).filter(|&len| len >= 8).ok_or(damaged("it is too short"))?;
    let hashed = Hashed { stream: file.take(len), hasher: blake3::Hasher::new() };
    let mut source = BufReader::with_capacity(BUFFER_BYTES, hashed);
    let mut found = [0; 8];
    source.read_exact(&mut found).map_err(io_error("read", path))?;
    if found != magic {
        return Err(damaged("it begins with something else"));
    }
    let result = match content(&mut source, len - 8) {
        Ok(result) => result,
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
            return Err(damaged("its content makes no sense"));
        }
        Err(source) => return Err(io_error("read", path)(source)),
    };
    let whole = source.fill_buf().map(<[u8]>::is_empty).map_err(io_error("read", path))?;
    let Hashed { stream, hasher } = source.into_inner();
    let mut seal = [0; SEAL_BYTES as usize];
    stream.into_inner().read_exact(&mut seal).map_err(io_error("read", path))?;
    if !whole || *hasher.finalize().as_bytes() != seal {
        return Err(damaged("its checksum does not fit"));
    }
    Ok(Some(result))
}

/// The next `N` bytes.
pub(crate) fn array<const N: usize>(source: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    source.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The next number.
pub(crate) fn u32_of(source: &mut impl Read) -> io::Result<u32> {
    array(source).map(u32::from_le_bytes)
}

/// The next number.
pub(crate) fn u64_of(source: &mut impl Read) -> io::Result<u64> {
    array(source).map(u64::from_le_bytes)
}

/// The next text of at most `max` bytes.
pub(crate) fn text_of(source: &mut impl Read, max: usize) -> io::Result<String> {
    let len = u32_of(source)? as usize;
    if len > max {
        return Err(nonsense("a text is too long"));
    }
    let mut bytes = vec![0; len];
    source.read_exact(&mut bytes)?;
    String::from_utf8(bytes).map_err(|_| nonsense("a text is not UTF-8"))
}

/// Writes a text for [`text_of`].
pub(crate) fn put_text(sink: &mut impl Write, text: &str) -> io::Result<()> {
    sink.write_all(&(text.len() as u32).to_le_bytes())?;
    sink.write_all(text.as_bytes())
}

/// An error for content that cannot be.
pub(crate) fn nonsense(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
