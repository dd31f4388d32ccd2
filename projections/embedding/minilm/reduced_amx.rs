//! Reduced products on AMX: tiles of 16 rows of 64 bytes, multiplied by one instruction.
//!
//! The compiler knows no tiles, so each loop over them is one block of assembly, from zero to the results in memory.
//! Two blocks of rows and a panel's two halves make four tiles of sums, which share two tiles of each side.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

use super::kernels::{PANEL_COLUMNS, RowsMut};
use super::reduced::{BLOCK_ROWS, Columns, Form, STEP_WORDS};
use super::reduced_plain as plain;

/// Up to two blocks of rows times a panel.
pub(super) struct Pair<'a> {
    pub(super) form: Form,
    /// Where `rows` are not more than a block, the second one may be any.
    pub(super) blocks: [&'a [u32]; 2],
    pub(super) rows: usize,
    /// Whether to fetch what is multiplied after this panel.
    pub(super) fetch: bool,
    /// What one stands for, by row; empty with 16 bits.
    pub(super) row_scales: &'a [f32],
    pub(super) columns: Columns<'a>,
}

/// Whether the processor has tiles of both forms and the system lets this process use them.
pub(super) fn granted() -> bool {
    static GRANTED: OnceLock<bool> = OnceLock::new();
    *GRANTED.get_or_init(|| on_processor() && ask_system())
}

fn on_processor() -> bool {
    /// Tiles with 16-bit products, tiles, tiles with 8-bit products.
    const FEATURES: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    /// The tiles' configuration and their data are saved with a thread.
    const STATES: u64 = 1 << 17 | 1 << 18;
    if __cpuid(0).eax < 7 || !is_x86_feature_detected!("xsave") {
        return false;
    }
    let has = __cpuid_count(7, 0).edx & FEATURES == FEATURES;
    // SAFETY: the processor has `xsave`, and an operating system that switched it on (the detection asks for both).
    has && unsafe { _xgetbv(0) } & STATES == STATES
}

/// Asks for the state that tiles need, for all threads of this process. Linux gives it to who asks.
#[cfg(target_os = "linux")]
fn ask_system() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: the call changes nothing but what this process may use.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn ask_system() -> bool {
    false
}

/// What tiles are like: eight of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Shape {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static SHAPE: Shape = Shape {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// The sums of two blocks, of either form.
#[repr(C, align(64))]
struct Sums<T>([[T; PANEL_COLUMNS]; 2 * BLOCK_ROWS]);

/// Proof that this thread's tiles have their shape. When it is dropped they are given back: a thread with tiles takes
/// longer to be switched, and keeps its core from sleeping deeply.
pub(crate) struct Tiles(PhantomData<*const ()>);

impl Tiles {
    /// Gives this thread's tiles their shape.
    ///
    /// # Safety
    ///
    /// The tiles are [`granted`]. A thread has one of these at a time.
    pub(super) unsafe fn shaped() -> Self {
        // SAFETY: the processor has tiles and may use them, and `SHAPE` is what its manual asks for.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const SHAPE, options(nostack, readonly)) };
        Self(PhantomData)
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: they were shaped, so the processor has them; nobody uses them after this.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// Writes the columns of `y` that the pair gives.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
pub(super) fn multiply(_tiles: &Tiles, pair: &Pair<'_>, y: &mut RowsMut<'_>) {
    // The loops take at least one step.
    if pair.columns.panel.len() < STEP_WORDS {
        return;
    }
    match pair.form {
        Form::Bf16 if pair.rows == 2 * BLOCK_ROWS => {
            // This cut is the bounds check of what the tiles write.
            let to = &mut y.numbers[..(pair.rows - 1) * y.stride + PANEL_COLUMNS];
            // SAFETY: all 32 rows are inside the cut, and both starts and results are `f32`.
            unsafe { sum(pair, pair.columns.bias.as_ptr().cast(), to.as_mut_ptr().cast(), y.stride) };
        }
        Form::Bf16 => {
            let mut sums = MaybeUninit::<Sums<f32>>::uninit();
            // SAFETY: there is room for 32 rows, and both starts and results are `f32`.
            unsafe { sum(pair, pair.columns.bias.as_ptr().cast(), sums.as_mut_ptr().cast(), PANEL_COLUMNS) };
            // SAFETY: all 32 rows were written.
            let sums = unsafe { sums.assume_init_ref() };
            for (row, sums) in sums.0.iter().take(pair.rows).enumerate() {
                y.numbers[row * y.stride..][..PANEL_COLUMNS].copy_from_slice(sums);
            }
        }
        Form::Int8 => {
            let mut sums = MaybeUninit::<Sums<i32>>::uninit();
            // SAFETY: there is room for 32 rows, and both starts and results are `i32`.
            unsafe { sum(pair, ZEROS.as_ptr().cast(), sums.as_mut_ptr().cast(), PANEL_COLUMNS) };
            // SAFETY: all 32 rows were written.
            let sums = unsafe { sums.assume_init_ref() };
            for (row, (sums, scale)) in sums.0.iter().zip(pair.row_scales).enumerate() {
                let y = &mut y.numbers[row * y.stride..][..PANEL_COLUMNS];
                plain::int8_results(sums, *scale, &pair.columns, y);
            }
        }
    }
}

const ZEROS: [i32; PANEL_COLUMNS] = [0; PANEL_COLUMNS];

/// Adds up 32 rows: those of the pair, whatever stands behind them in the second block.
///
/// # Safety
///
/// `start` has a number of the form's sums for each column, `sums` has room for 32 rows of [`PANEL_COLUMNS`] whose
/// starts are `stride` apart, and this thread's tiles are shaped.
unsafe fn sum(pair: &Pair<'_>, start: *const u32, sums: *mut u32, stride: usize) {
    let steps = pair.columns.panel.len() / STEP_WORDS;
    // These cuts are the bounds checks of what the tiles read. Without a second block the first one counts twice.
    let blocks = pair.blocks.map(|block| block[..steps * STEP_WORDS * BLOCK_ROWS].as_ptr());
    let whole = Loop { blocks, panel: pair.columns.panel.as_ptr().cast(), steps, start, sums, stride };
    // SAFETY: the caller's and the cuts above; `steps` is at least 1 where there is something to multiply.
    unsafe {
        match (pair.form, pair.fetch) {
            (Form::Bf16, true) => whole.bf16_and_fetch(pair.columns.next),
            (Form::Bf16, false) => whole.bf16(),
            (Form::Int8, true) => whole.int8_and_fetch(pair.columns.next),
            (Form::Int8, false) => whole.int8(),
        }
    }
}

/// What the loop over the steps of two blocks and a panel works on.
struct Loop {
    blocks: [*const u32; 2],
    panel: *const u32,
    steps: usize,
    start: *const u32,
    sums: *mut u32,
    stride: usize,
}

/// Defines the loop, with `$dot` as its product and with lines of its own in each turn.
macro_rules! loop_over_steps {
    ($name:ident, $dot:literal, [$($ahead:ident)?], [$($line:literal)*]) => {
        /// # Safety
        ///
        /// As for [`sum`]. The blocks have `steps` steps, at least one, as the panel has.
        unsafe fn $name(self $(, $ahead: *const u32)?) {
            // SAFETY: the caller's: tiles are read inside the blocks and the panel, and written inside the sums.
            unsafe {
                asm!(
                    "tileloadd tmm0, [{start} + {none}*1]",
                    "tileloadd tmm1, [{start} + {none}*1 + 64]",
                    "tileloadd tmm2, [{start} + {none}*1]",
                    "tileloadd tmm3, [{start} + {none}*1 + 64]",
                    "2:",
                    "tileloadd tmm6, [{panel} + {panel_row}*1]",
                    "tileloadd tmm4, [{first} + {block_row}*1]",
                    concat!($dot, " tmm0, tmm4, tmm6"),
                    "tileloadd tmm7, [{panel} + {panel_row}*1 + 64]",
                    concat!($dot, " tmm1, tmm4, tmm7"),
                    "tileloadd tmm5, [{second} + {block_row}*1]",
                    concat!($dot, " tmm2, tmm5, tmm6"),
                    concat!($dot, " tmm3, tmm5, tmm7"),
                    $($line,)*
                    "add {first}, 1024",
                    "add {second}, 1024",
                    "add {panel}, 2048",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{sums} + {sums_row}*1], tmm0",
                    "tilestored [{sums} + {sums_row}*1 + 64], tmm1",
                    "tilestored [{sums_second} + {sums_row}*1], tmm2",
                    "tilestored [{sums_second} + {sums_row}*1 + 64], tmm3",
                    first = inout(reg) self.blocks[0] => _,
                    second = inout(reg) self.blocks[1] => _,
                    panel = inout(reg) self.panel => _,
                    steps = inout(reg) self.steps => _,
                    start = in(reg) self.start,
                    none = in(reg) 0_usize,
                    block_row = in(reg) 64_usize,
                    panel_row = in(reg) 128_usize,
                    sums = in(reg) self.sums,
                    sums_second = in(reg) self.sums.wrapping_add(BLOCK_ROWS * self.stride),
                    sums_row = in(reg) self.stride * size_of::<u32>(),
                    $($ahead = inout(reg) $ahead => _,)?
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

/// As [`loop_over_steps`], fetching as much of what comes next as it multiplies: two kilobytes a step.
macro_rules! loop_and_fetch {
    ($name:ident, $dot:literal) => {
        loop_over_steps!($name, $dot, [ahead], [
            "prefetcht1 [{ahead}]" "prefetcht1 [{ahead} + 64]" "prefetcht1 [{ahead} + 128]"
            "prefetcht1 [{ahead} + 192]" "prefetcht1 [{ahead} + 256]" "prefetcht1 [{ahead} + 320]"
            "prefetcht1 [{ahead} + 384]" "prefetcht1 [{ahead} + 448]" "prefetcht1 [{ahead} + 512]"
            "prefetcht1 [{ahead} + 576]" "prefetcht1 [{ahead} + 640]" "prefetcht1 [{ahead} + 704]"
            "prefetcht1 [{ahead} + 768]" "prefetcht1 [{ahead} + 832]" "prefetcht1 [{ahead} + 896]"
            "prefetcht1 [{ahead} + 960]" "prefetcht1 [{ahead} + 1024]" "prefetcht1 [{ahead} + 1088]"
            "prefetcht1 [{ahead} + 1152]" "prefetcht1 [{ahead} + 1216]" "prefetcht1 [{ahead} + 1280]"
            "prefetcht1 [{ahead} + 1344]" "prefetcht1 [{ahead} + 1408]" "prefetcht1 [{ahead} + 1472]"
            "prefetcht1 [{ahead} + 1536]" "prefetcht1 [{ahead} + 1600]" "prefetcht1 [{ahead} + 1664]"
            "prefetcht1 [{ahead} + 1728]" "prefetcht1 [{ahead} + 1792]" "prefetcht1 [{ahead} + 1856]"
            "prefetcht1 [{ahead} + 1920]" "prefetcht1 [{ahead} + 1984]" "add {ahead}, 2048"
        ]);
    };
}

impl Loop {
    loop_over_steps!(bf16, "tdpbf16ps", [], []);
    loop_over_steps!(int8, "tdpbssd", [], []);
    loop_and_fetch!(bf16_and_fetch, "tdpbf16ps");
    loop_and_fetch!(int8_and_fetch, "tdpbssd");
}
