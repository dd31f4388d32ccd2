//! The weights of the model: read from a safetensors file and packed for the kernels.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use memmap2::{Mmap, MmapOptions};

use super::super::LoadError;
use super::buffer::{FloatBuffer, WordBuffer};
use super::instructions::InstructionSet;
use super::kernels::{Norm, PANEL_COLUMNS, Panels};
use super::product::{Matrix, Product};
use super::reduced::{Form, ReducedPanels};
use super::reduced_weights::{pack_weights, round_to_bf16};
use super::safetensors::{self, TensorError};
use crate::embedding::Precision;

/// How big the parts of a BERT encoder are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) vocabulary: usize,
    pub(crate) positions: usize,
    /// Width of a token's vector; heads are [`PANEL_COLUMNS`] wide, so it is a multiple of that.
    pub(crate) hidden: usize,
    /// Width between the two halves of a feed-forward part; a multiple of [`PANEL_COLUMNS`].
    pub(crate) feed_forward: usize,
    pub(crate) layers: usize,
}

/// all-MiniLM-L6-v2, as its `config.json` says; the file's checksum is what holds it to that.
pub(crate) const MINILM: Shape =
    Shape { vocabulary: 30_522, positions: 512, hidden: 384, feed_forward: 1_536, layers: 6 };

/// What BERT adds to a variance before it divides by its root.
const EPSILON: f32 = 1e-12;

/// How the weights are held in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placement {
    pub(crate) memory_map: bool,
    pub(crate) prefault: bool,
    pub(crate) huge_pages: bool,
}

/// Everything that the forward pass reads.
pub(crate) struct Weights {
    pub(crate) shape: Shape,
    words: WordTable,
    /// One row a position, the vector of token type 0 already added.
    positions: Vec<f32>,
    pub(crate) embedding_norm: Norm,
    pub(crate) layers: Vec<Layer>,
    packed: Packed,
}

/// One layer of the encoder.
pub(crate) struct Layer {
    /// Query, key and value side by side.
    attention_in: Place,
    attention_out: Place,
    pub(crate) attention_norm: Norm,
    feed_in: Place,
    feed_out: Place,
    pub(crate) feed_norm: Norm,
}

/// Where a packed matrix lies, and what belongs to its columns.
struct Place {
    /// Of numbers, or of words.
    range: Range<usize>,
    depth: usize,
    bias: Vec<f32>,
    /// Of 8-bit columns; see [`ReducedPanels::columns`].
    scales: Vec<f32>,
    offsets: Vec<i32>,
}

/// What the numbers of the packed matrices are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// As they are in the file.
    Full,
    /// Rounded to 16 bits; see [`Matrix::Rounded`].
    Rounded,
    /// Packed in words.
    Reduced(Form),
}

impl Numbers {
    /// What the kernels of `set` multiply for `precision`.
    pub(crate) const fn of(precision: Precision, set: InstructionSet) -> Self {
        match precision {
            Precision::Fp32 => Self::Full,
            Precision::Fp16 if set.multiplies_bf16() => Self::Reduced(Form::Bf16),
            Precision::Fp16 => Self::Rounded,
            Precision::Int8 => Self::Reduced(Form::Int8),
        }
    }
}

/// The packed matrices of all layers, one after the other.
enum Packed {
    Full(FloatBuffer),
    Rounded(FloatBuffer),
    Reduced(Form, WordBuffer),
}

/// The vectors of the words, half of the model: a text needs a few rows of them.
enum WordTable {
    /// Little-endian numbers in the file itself. They count as file pages, which the system may drop.
    Mapped(Mmap),
    Read(FloatBuffer),
}

/// Gives a tensor of a given number of numbers by its name.
pub(crate) trait Tensors {
    /// The numbers of tensor `name`, row by row.
    fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, TensorError>;
}

impl Weights {
    /// Reads the weights in the safetensors file `path`.
    pub(crate) fn load(
        path: &Path,
        shape: Shape,
        numbers: Numbers,
        placement: Placement,
    ) -> Result<Self, LoadError> {
        let failed = |source| LoadError::Read { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(failed)?;
        // This mapping lives until the layers are packed; then its pages no longer count for this process.
        // SAFETY: files of a model are never written in place: `model pull` renames finished files into the
        // folder, and the checksum was verified. Where another program truncates them, `memory_map: false` helps.
        let whole = unsafe { Mmap::map(&file) }.map_err(failed)?;
        let parsed = safetensors::File::parse(&whole)
            .map_err(|source| LoadError::Tensor { path: path.to_path_buf(), source })?;
        let table_shape = [shape.vocabulary, shape.hidden];
        let range = parsed
            .range(WORD_TABLE, &table_shape)
            .map_err(|source| LoadError::Tensor { path: path.to_path_buf(), source })?;
        let words = if placement.memory_map {
            let mut options = MmapOptions::new();
            options.offset(range.start as u64).len(range.len());
            if placement.prefault {
                options.populate();
            }
            // SAFETY: as for `whole`.
            WordTable::Mapped(unsafe { options.map(&file) }.map_err(failed)?)
        } else {
            let mut table =
                FloatBuffer::zeroed(range.len() / size_of::<f32>(), placement.huge_pages).map_err(failed)?;
            copy_little_endian(&whole[range], &mut table);
            WordTable::Read(table)
        };
        Self::pack(&parsed, shape, words, numbers, placement.huge_pages).map_err(|error| match error {
            PackError::Tensor(source) => LoadError::Tensor { path: path.to_path_buf(), source },
            PackError::Memory(source) => LoadError::Read { path: path.to_path_buf(), source },
        })
    }

    fn pack(
        tensors: &dyn Tensors,
        shape: Shape,
        words: WordTable,
        numbers: Numbers,
        huge_pages: bool,
    ) -> Result<Self, PackError> {
        let Shape { hidden, feed_forward, .. } = shape;
        let mut positions =
            tensors.read("embeddings.position_embeddings.weight", &[shape.positions, hidden])?;
        let token_types = tensors.read("embeddings.token_type_embeddings.weight", &[2, hidden])?;
        for row in positions.chunks_exact_mut(hidden) {
            for (number, add) in row.iter_mut().zip(&token_types) {
                *number += add;
            }
        }
        let floats = || {
            let per_layer = 4 * hidden * hidden + 2 * hidden * feed_forward;
            FloatBuffer::zeroed(per_layer * shape.layers, huge_pages)
        };
        let packed = match numbers {
            Numbers::Full => Packed::Full(floats()?),
            Numbers::Rounded => Packed::Rounded(floats()?),
            Numbers::Reduced(form) => {
                let panels = (4 * hidden + feed_forward) / PANEL_COLUMNS;
                let per_layer = panels * form.panel_words(hidden)
                    + hidden / PANEL_COLUMNS * form.panel_words(feed_forward);
                Packed::Reduced(form, WordBuffer::zeroed(per_layer * shape.layers, huge_pages)?)
            }
        };
        let mut packer = Packer { tensors, packed, used: 0 };
        let layers = (0..shape.layers).map(|index| packer.layer(index, shape)).collect::<Result<_, _>>()?;
        Ok(Self {
            shape,
            words,
            positions,
            embedding_norm: packer.norm("embeddings.LayerNorm", hidden)?,
            layers,
            packed: packer.packed,
        })
    }

    /// Writes the vector of word `id` into `to`; an unknown id counts as the last word.
    pub(crate) fn word(&self, id: u32, to: &mut [f32]) {
        let hidden = self.shape.hidden;
        let start = (id as usize).min(self.shape.vocabulary - 1) * hidden;
        match &self.words {
            WordTable::Mapped(bytes) => {
                let width = size_of::<f32>();
                copy_little_endian(&bytes[start * width..(start + hidden) * width], to);
            }
            WordTable::Read(numbers) => to.copy_from_slice(&numbers[start..start + hidden]),
        }
    }

    /// The vector of position `index`, from 0, and of token type 0.
    pub(crate) fn position(&self, index: usize) -> &[f32] {
        &self.positions[index * self.shape.hidden..][..self.shape.hidden]
    }

    /// What the numbers of the packed matrices are.
    pub(crate) fn numbers(&self) -> Numbers {
        match self.packed {
            Packed::Full(_) => Numbers::Full,
            Packed::Rounded(_) => Numbers::Rounded,
            Packed::Reduced(form, _) => Numbers::Reduced(form),
        }
    }

    /// The matrix that `product` of layer `layer` multiplies by.
    pub(crate) fn matrix(&self, layer: usize, product: Product) -> Matrix<'_> {
        let layer = &self.layers[layer];
        let place = match product {
            Product::AttentionIn => &layer.attention_in,
            Product::AttentionOut => &layer.attention_out,
            Product::FeedIn => &layer.feed_in,
            Product::FeedOut => &layer.feed_out,
        };
        let (range, depth, bias) = (place.range.clone(), place.depth, Some(place.bias.as_slice()));
        match &self.packed {
            Packed::Full(numbers) => Matrix::Full(Panels { numbers: &numbers[range], depth, bias }),
            Packed::Rounded(numbers) => Matrix::Rounded(Panels { numbers: &numbers[range], depth, bias }),
            Packed::Reduced(form, words) => {
                let columns = (!place.scales.is_empty()).then_some((&*place.scales, &*place.offsets));
                Matrix::Reduced(ReducedPanels { words: &words[range], form: *form, depth, bias, columns })
            }
        }
    }
}

const WORD_TABLE: &str = "embeddings.word_embeddings.weight";

enum PackError {
    Tensor(TensorError),
    Memory(io::Error),
}

impl From<TensorError> for PackError {
    fn from(error: TensorError) -> Self {
        Self::Tensor(error)
    }
}

impl From<io::Error> for PackError {
    fn from(error: io::Error) -> Self {
        Self::Memory(error)
    }
}

struct Packer<'a> {
    tensors: &'a dyn Tensors,
    packed: Packed,
    /// Numbers or words of it that are taken.
    used: usize,
}

impl Packer<'_> {
    fn layer(&mut self, index: usize, shape: Shape) -> Result<Layer, TensorError> {
        let Shape { hidden, feed_forward, .. } = shape;
        let name = |part: &str| format!("encoder.layer.{index}.{part}");
        let attention = ["query", "key", "value"].map(|part| name(&format!("attention.self.{part}")));
        Ok(Layer {
            attention_in: self.matrix(&attention, hidden, hidden)?,
            attention_out: self.matrix(&[name("attention.output.dense")], hidden, hidden)?,
            attention_norm: self.norm(&name("attention.output.LayerNorm"), hidden)?,
            feed_in: self.matrix(&[name("intermediate.dense")], feed_forward, hidden)?,
            feed_out: self.matrix(&[name("output.dense")], hidden, feed_forward)?,
            feed_norm: self.norm(&name("output.LayerNorm"), hidden)?,
        })
    }

    fn norm(&self, name: &str, width: usize) -> Result<Norm, TensorError> {
        Ok(Norm {
            gain: self.tensors.read(&format!("{name}.weight"), &[width])?,
            bias: self.tensors.read(&format!("{name}.bias"), &[width])?,
            epsilon: EPSILON,
        })
    }

    /// Packs linear maps of the same size side by side; each is stored as `columns` rows of `depth`.
    fn matrix(&mut self, names: &[String], columns: usize, depth: usize) -> Result<Place, TensorError> {
        let mut place = Place {
            range: self.used..self.used,
            depth,
            bias: Vec::with_capacity(columns * names.len()),
            scales: Vec::new(),
            offsets: Vec::new(),
        };
        for name in names {
            let mut rows = self.tensors.read(&format!("{name}.weight"), &[columns, depth])?;
            let rounded = matches!(self.packed, Packed::Rounded(_));
            match &mut self.packed {
                Packed::Full(numbers) | Packed::Rounded(numbers) => {
                    if rounded {
                        round_to_bf16(&mut rows);
                    }
                    pack_panels(&rows, depth, &mut numbers[self.used..self.used + rows.len()]);
                    self.used += rows.len();
                }
                Packed::Reduced(form, words) => {
                    let len = columns / PANEL_COLUMNS * form.panel_words(depth);
                    let packed = pack_weights(&rows, depth, *form, &mut words[self.used..self.used + len]);
                    place.scales.extend(packed.scales);
                    place.offsets.extend(packed.offsets);
                    self.used += len;
                }
            }
            place.bias.extend(self.tensors.read(&format!("{name}.bias"), &[columns])?);
        }
        place.range.end = self.used;
        Ok(place)
    }
}

/// Turns rows of `depth` numbers into panels: number j of a panel's row k is number k of the panel's row j.
fn pack_panels(rows: &[f32], depth: usize, packed: &mut [f32]) {
    let panel = PANEL_COLUMNS * depth;
    for (rows, packed) in rows.chunks_exact(panel).zip(packed.chunks_exact_mut(panel)) {
        for (index, to) in packed.chunks_exact_mut(PANEL_COLUMNS).enumerate() {
            for (column, number) in to.iter_mut().enumerate() {
                *number = rows[column * depth + index];
            }
        }
    }
}

fn copy_little_endian(bytes: &[u8], to: &mut [f32]) {
    let (numbers, _) = bytes.as_chunks::<4>();
    for (number, bytes) in to.iter_mut().zip(numbers) {
        *number = f32::from_le_bytes(*bytes);
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Small random weights, so that the forward pass is tested where the model's files are absent.

    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use super::*;
    use crate::embedding::minilm::kernels::Kernels;

    struct Random;

    impl Tensors for Random {
        fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, TensorError> {
            let mut state = blake3::hash(name.as_bytes()).as_bytes()[..8]
                .iter()
                .fold(1_u64, |seed, byte| (seed << 8) ^ u64::from(*byte));
            let gain = f32::from(u8::from(name.ends_with("LayerNorm.weight")));
            Ok((0..shape.iter().product())
                .map(|_| {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    gain + ((state >> 40) as f32 / 16_777_216.0 - 0.5) * 0.4
                })
                .collect())
        }
    }

    /// Two layers of two heads.
    pub(crate) const SMALL: Shape =
        Shape { vocabulary: 61, positions: 80, hidden: 64, feed_forward: 96, layers: 2 };

    /// Every precision on everything that this processor has for it, with the weights that belong to it.
    pub(crate) fn every_way() -> Vec<(Kernels, Weights)> {
        let precisions = [Precision::Fp32, Precision::Fp16, Precision::Int8].into_iter();
        let sets = precisions.flat_map(|precision| {
            InstructionSet::available(precision).into_iter().map(move |set| (precision, set))
        });
        sets.map(|(precision, set)| {
            let weights = small_weights_in(Numbers::of(precision, set));
            (Kernels::of(set, precision).unwrap(), weights)
        })
        .collect()
    }

    /// Weights of [`SMALL`], the same at each call.
    pub(crate) fn small_weights() -> Weights {
        small_weights_in(Numbers::Full)
    }

    /// As [`small_weights`], as `numbers`.
    pub(crate) fn small_weights_in(numbers: Numbers) -> Weights {
        let vectors = Random.read(WORD_TABLE, &[SMALL.vocabulary, SMALL.hidden]).ok().unwrap();
        let mut table = FloatBuffer::zeroed(vectors.len(), false).unwrap();
        table.copy_from_slice(&vectors);
        Weights::pack(&Random, SMALL, WordTable::Read(table), numbers, false).ok().unwrap()
    }
}
