//! A tile of a product in plain loops, which compilers turn into what the target has (SSE2, NEON).

use super::kernels::{PANEL_COLUMNS, Tile};
use super::kernels_pointwise::{NATIVE_FMA, multiply_add};

/// Most rows of a tile.
pub(super) const TILE_ROWS_MAX: usize = 4;

/// Columns that are summed at a time, so that the sums of [`TILE_ROWS_MAX`] rows stay in 16 registers of 128 bits.
const COLUMNS: usize = 8;

/// Computes one tile of at most [`TILE_ROWS_MAX`] rows.
pub(super) fn tile(tile: &mut Tile<'_>) {
    match tile.x.count {
        1 => rows::<1>(tile),
        2 => rows::<2>(tile),
        3 => rows::<3>(tile),
        _ => rows::<4>(tile),
    }
}

fn rows<const ROWS: usize>(tile: &mut Tile<'_>) {
    let depth = tile.panel.len();
    let x: [&[f32]; ROWS] = std::array::from_fn(|row| &tile.x.numbers[row * tile.x.stride..][..depth]);
    for column in (0..PANEL_COLUMNS).step_by(COLUMNS) {
        let mut sums = [[0.0_f32; COLUMNS]; ROWS];
        for row in &mut sums {
            row.copy_from_slice(&tile.bias[column..column + COLUMNS]);
        }
        for (step, panel_row) in tile.panel.iter().enumerate() {
            let weights = &panel_row[column..column + COLUMNS];
            for (row, sums) in sums.iter_mut().enumerate() {
                let factor = x[row][step];
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum = multiply_add::<NATIVE_FMA>(factor, *weight, *sum);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            tile.y.numbers[row * tile.y.stride + column..][..COLUMNS].copy_from_slice(sums);
        }
    }
}
