//! A product of activations with a packed matrix of the model, in whichever precision the matrix has.

use super::kernels::{Kernels, Order, PANEL_COLUMNS, Panels, Rows, RowsMut};
use super::reduced::{Operand, ReducedPanels, Tiles};

/// A product of each layer, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Product {
    AttentionIn,
    AttentionOut,
    /// Followed by the Gaussian error linear unit.
    FeedIn,
    FeedOut,
}

/// A packed matrix of the model.
#[derive(Clone, Copy)]
pub(crate) enum Matrix<'a> {
    Full(Panels<'a>),
    /// Rounded to 16 bits, as the other side will be, and multiplied with 32: for processors that multiply no others.
    Rounded(Panels<'a>),
    Reduced(ReducedPanels<'a>),
}

impl<'a> Matrix<'a> {
    /// Panels that it has.
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::Full(panels) | Self::Rounded(panels) => panels.count(),
            Self::Reduced(panels) => panels.count(),
        }
    }

    /// Numbers of a row that is multiplied by it.
    pub(crate) fn depth(&self) -> usize {
        match self {
            Self::Full(panels) | Self::Rounded(panels) => panels.depth,
            Self::Reduced(panels) => panels.depth,
        }
    }

    /// As [`with`](Self::with), of an `operand` that has taken `x` already.
    pub(crate) fn with_taken(
        self,
        tiles: &'a Tiles,
        x: Rows<'a>,
        operand: &'a Operand,
    ) -> Multiplication<'a> {
        match self {
            Self::Full(panels) => Multiplication::Full(x, panels),
            Self::Rounded(panels) => {
                let x = Rows { numbers: operand.rounded(), count: x.count, stride: panels.depth };
                Multiplication::Full(x, panels)
            }
            Self::Reduced(panels) => Multiplication::Reduced(tiles, operand, panels),
        }
    }

    /// Brings `x` into the form that this matrix is multiplied with; `operand` is room for that.
    pub(crate) fn with(
        self,
        kernels: Kernels,
        tiles: &'a Tiles,
        x: Rows<'a>,
        operand: &'a mut Operand,
    ) -> Multiplication<'a> {
        match self {
            Self::Full(_) => (),
            Self::Rounded(panels) => operand.round(kernels, x, panels.depth),
            Self::Reduced(panels) => operand.fill(kernels, panels.form, x, panels.depth),
        }
        self.with_taken(tiles, x, operand)
    }
}

/// Both sides of a product, ready to be multiplied.
#[derive(Clone, Copy)]
pub(crate) enum Multiplication<'a> {
    Full(Rows<'a>, Panels<'a>),
    Reduced(&'a Tiles, &'a Operand, ReducedPanels<'a>),
}

impl Multiplication<'_> {
    /// Writes the columns of `y` that panel `index` gives, with what follows `product` number by number.
    pub(crate) fn panel(
        &self,
        kernels: Kernels,
        product: Product,
        index: usize,
        order: Order,
        y: &mut RowsMut<'_>,
    ) {
        let rows = match *self {
            Self::Full(x, panels) => {
                kernels.matmul_panel(x, panels, index, order, y);
                x.count
            }
            Self::Reduced(tiles, x, panels) => {
                kernels.reduced_panel(tiles, x, panels, index, order, y);
                x.rows()
            }
        };
        if product == Product::FeedIn {
            for row in y.numbers.chunks_mut(y.stride).take(rows) {
                kernels.gelu(&mut row[index * PANEL_COLUMNS..][..PANEL_COLUMNS]);
            }
        }
    }

    /// Writes all columns of `y`.
    pub(crate) fn all(&self, kernels: Kernels, product: Product, y: &mut RowsMut<'_>) {
        let count = match self {
            Self::Full(_, panels) => panels.count(),
            Self::Reduced(_, _, panels) => panels.count(),
        };
        for index in 0..count {
            self.panel(kernels, product, index, Order::Upwards, y);
        }
    }
}
