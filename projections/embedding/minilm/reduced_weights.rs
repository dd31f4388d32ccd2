//! The model's matrices, packed for reduced products once, when the model is loaded.

use super::kernels::PANEL_COLUMNS;
use super::reduced::Form;
use super::reduced_plain::{INT8_MAX, bf16, greatest, int8};

/// What belongs to the columns of packed 8-bit numbers; empty for 16 bits. See [`super::reduced::ReducedPanels`].
pub(super) struct PackedColumns {
    pub(super) scales: Vec<f32>,
    pub(super) offsets: Vec<i32>,
}

/// Packs rows of `depth` numbers, each of which becomes a column, as the panels that `form` is multiplied in.
///
/// `packed` is zero and has room for all of them.
pub(super) fn pack_weights(rows: &[f32], depth: usize, form: Form, packed: &mut [u32]) -> PackedColumns {
    let (mut scales, mut offsets) = (Vec::new(), Vec::new());
    let panel_words = form.panel_words(depth);
    for (column, row) in rows.chunks_exact(depth).enumerate() {
        let panel = &mut packed[column / PANEL_COLUMNS * panel_words..][..panel_words];
        let to = panel[column % PANEL_COLUMNS..].iter_mut().step_by(PANEL_COLUMNS);
        match form {
            Form::Bf16 => {
                for (to, pair) in to.zip(row.chunks(2)) {
                    *to = bf16(pair[0]) | pair.get(1).map_or(0, |second| bf16(*second) << 16);
                }
            }
            Form::Int8 => {
                let greatest = greatest(row);
                let inverse = if greatest > 0.0 { INT8_MAX / greatest } else { 0.0 };
                let mut sum = 0;
                for (to, numbers) in to.zip(row.chunks(4)) {
                    let mut bytes = [0; 4];
                    for (byte, number) in bytes.iter_mut().zip(numbers) {
                        *byte = int8(number * inverse);
                        sum += i32::from(*byte as i8);
                    }
                    *to = u32::from_le_bytes(bytes);
                }
                scales.push(greatest / INT8_MAX);
                offsets.push(-128 * sum);
            }
        }
    }
    PackedColumns { scales, offsets }
}

/// Rounds each number to 16 bits.
pub(super) fn round_to_bf16(numbers: &mut [f32]) {
    for number in numbers {
        *number = f32::from_bits(bf16(*number) << 16);
    }
}
