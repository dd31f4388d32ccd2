//! The weights of the model: read from a safetensors file and packed for the kernels.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use memmap2::{Mmap, MmapOptions};

use super::super::LoadError;
use super::buffer::FloatBuffer;
use super::kernels::{Norm, PANEL_COLUMNS, Panels};
use super::safetensors::{self, TensorError};

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
    /// The packed matrices of all layers, one after the other.
    packed: FloatBuffer,
}

/// One layer of the encoder.
pub(crate) struct Layer {
    /// Query, key and value side by side.
    attention_in: Matrix,
    attention_out: Matrix,
    pub(crate) attention_norm: Norm,
    feed_in: Matrix,
    feed_out: Matrix,
    pub(crate) feed_norm: Norm,
}

/// A product of each layer, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Product {
    AttentionIn,
    AttentionOut,
    /// Followed by the Gaussian error linear unit.
    FeedIn,
    FeedOut,
}

/// Where a packed matrix lies, and its bias.
struct Matrix {
    numbers: Range<usize>,
    depth: usize,
    bias: Vec<f32>,
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
    pub(crate) fn load(path: &Path, shape: Shape, placement: Placement) -> Result<Self, LoadError> {
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
        Self::pack(&parsed, shape, words, placement.huge_pages).map_err(|error| match error {
            PackError::Tensor(source) => LoadError::Tensor { path: path.to_path_buf(), source },
            PackError::Memory(source) => LoadError::Read { path: path.to_path_buf(), source },
        })
    }

    fn pack(
        tensors: &dyn Tensors,
        shape: Shape,
        words: WordTable,
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
        let per_layer = 4 * hidden * hidden + 2 * hidden * feed_forward;
        let packed = FloatBuffer::zeroed(per_layer * shape.layers, huge_pages)?;
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

    /// The packed numbers that `product` of layer `layer` multiplies by.
    pub(crate) fn panels(&self, layer: usize, product: Product) -> Panels<'_> {
        let layer = &self.layers[layer];
        let matrix = match product {
            Product::AttentionIn => &layer.attention_in,
            Product::AttentionOut => &layer.attention_out,
            Product::FeedIn => &layer.feed_in,
            Product::FeedOut => &layer.feed_out,
        };
        Panels {
            numbers: &self.packed[matrix.numbers.clone()],
            depth: matrix.depth,
            bias: Some(&matrix.bias),
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
    packed: FloatBuffer,
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
    fn matrix(&mut self, names: &[String], columns: usize, depth: usize) -> Result<Matrix, TensorError> {
        let start = self.used;
        let mut bias = Vec::with_capacity(columns * names.len());
        for name in names {
            let rows = self.tensors.read(&format!("{name}.weight"), &[columns, depth])?;
            pack_panels(&rows, depth, &mut self.packed[self.used..self.used + rows.len()]);
            self.used += rows.len();
            bias.extend(self.tensors.read(&format!("{name}.bias"), &[columns])?);
        }
        Ok(Matrix { numbers: start..self.used, depth, bias })
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

    use super::*;

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

    /// Weights of [`SMALL`], the same at each call.
    pub(crate) fn small_weights() -> Weights {
        let numbers = Random.read(WORD_TABLE, &[SMALL.vocabulary, SMALL.hidden]).ok().unwrap();
        let mut table = FloatBuffer::zeroed(numbers.len(), false).unwrap();
        table.copy_from_slice(&numbers);
        Weights::pack(&Random, SMALL, WordTable::Read(table), false).ok().unwrap()
    }
}
