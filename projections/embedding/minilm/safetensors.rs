//! Tensors in a safetensors file: `| header length: u64 LE | header: JSON | numbers |`.

use std::collections::BTreeMap;
use std::ops::Range;

use super::weights::Tensors;

/// Longest header that is read, in bytes. The model's has 10 KB.
const HEADER_BYTES_MAX: u64 = 1 << 20;

/// Why a tensor could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TensorError {
    /// The file is no safetensors file, or is cut short.
    #[error("this is no safetensors file: {reason}")]
    NotSafetensors {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The header is not what the format says.
    #[error("the header is not valid")]
    Header {
        /// What the JSON parser said.
        #[source]
        source: serde_json::Error,
    },
    /// A tensor that the model needs is absent.
    #[error("there is no tensor {name:?}; the file belongs to another model")]
    Absent {
        /// Its name.
        name: String,
    },
    /// A tensor has another type or shape, or lies outside the file.
    #[error("tensor {name:?} is {found}, not {expected}; the file belongs to another model or is cut short")]
    Unfit {
        /// Its name.
        name: String,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
}

#[derive(serde::Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

/// A parsed file.
pub(crate) struct File<'a> {
    bytes: &'a [u8],
    entries: BTreeMap<String, Entry>,
    numbers_start: usize,
}

impl<'a> File<'a> {
    /// Reads the header of `bytes`.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, TensorError> {
        let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
            return Err(TensorError::NotSafetensors { reason: "it is shorter than 8 bytes" });
        };
        let length = u64::from_le_bytes(*length);
        if length > HEADER_BYTES_MAX {
            return Err(TensorError::NotSafetensors { reason: "its header would be longer than 1 MiB" });
        }
        let Some(header) = rest.get(..length as usize) else {
            return Err(TensorError::NotSafetensors { reason: "it ends within its header" });
        };
        let mut values: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(header).map_err(|source| TensorError::Header { source })?;
        values.remove("__metadata__");
        let entries = values
            .into_iter()
            .map(|(name, value)| Ok((name, serde_json::from_value(value)?)))
            .collect::<Result<_, serde_json::Error>>()
            .map_err(|source| TensorError::Header { source })?;
        Ok(Self { bytes, entries, numbers_start: 8 + header.len() })
    }

    /// The bytes of the `f32` tensor `name` of `shape`, as a range of the file.
    pub(crate) fn range(&self, name: &str, shape: &[usize]) -> Result<Range<usize>, TensorError> {
        let Some(entry) = self.entries.get(name) else {
            return Err(TensorError::Absent { name: name.to_owned() });
        };
        let (start, end) = entry.data_offsets;
        let place = start.checked_add(self.numbers_start).zip(end.checked_add(self.numbers_start));
        let bytes = shape.iter().product::<usize>() * size_of::<f32>();
        match place {
            Some((from, to))
                if entry.dtype == "F32"
                    && entry.shape == shape
                    && from.checked_add(bytes) == Some(to)
                    && to <= self.bytes.len() =>
            {
                Ok(from..to)
            }
            _ => Err(TensorError::Unfit {
                name: name.to_owned(),
                found: format!("{} {:?} at bytes {start}..{end}", entry.dtype, entry.shape),
                expected: format!("F32 {shape:?}, {bytes} bytes inside the file"),
            }),
        }
    }
}

impl Tensors for File<'_> {
    fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, TensorError> {
        let (numbers, _) = self.bytes[self.range(name, shape)?].as_chunks::<4>();
        Ok(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use super::*;

    fn file(header: &str, numbers: &[f32]) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        bytes
    }

    #[test]
    fn a_tensor_is_read_by_name_and_shape() {
        let header = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
            "b":{"dtype":"F32","shape":[2,1],"data_offsets":[4,12]}}"#;
        let bytes = file(header, &[1.0, 2.0, 3.0]);
        let parsed = File::parse(&bytes).unwrap();
        assert_eq!(parsed.read("b", &[2, 1]).unwrap(), [2.0, 3.0]);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_reason() {
        let header = r#"{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,4]},
            "c":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},"d":{"dtype":"F32","shape":[2],"data_offsets":[18446744073709551608,18446744073709551615]}}"#;
        let bytes = file(header, &[1.0, 2.0]);
        let parsed = File::parse(&bytes).unwrap();
        for (name, part) in
            [("a", "F16"), ("b", "0..4"), ("c", "8..16"), ("d", "inside the file"), ("e", "no tensor")]
        {
            let error = parsed.read(name, &[2]).unwrap_err().to_string();
            assert!(error.contains(part), "{name}: {error}");
        }
    }

    #[test]
    fn a_file_cut_anywhere_in_its_header_is_refused() {
        let bytes = file(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, &[]);
        for len in 0..bytes.len() {
            assert!(File::parse(&bytes[..len]).is_err(), "cut at {len}");
        }
        assert!(File::parse(&u64::MAX.to_le_bytes()).is_err());
    }
}
