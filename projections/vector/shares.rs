//! Work in shares that threads take one after another, each of them worth the same whoever does it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Looks at a share that another thread has before it is done here too: some times what one takes.
const SPINS: usize = 16_384;

/// What becomes of each share.
pub(crate) struct Shares<T> {
    made: Vec<OnceLock<T>>,
    /// The first that nobody has taken.
    next: AtomicUsize,
}

impl<T> Shares<T> {
    pub(crate) fn new(count: usize) -> Self {
        Self { made: (0..count).map(|_| OnceLock::new()).collect(), next: AtomicUsize::new(0) }
    }

    /// Makes shares as long as there are any that nobody has, and has `learn` look at each, once.
    pub(crate) fn work(&self, make: impl Fn(usize) -> T, learn: impl Fn(&T)) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(made) = self.made.get(number) else { return };
            // Refused when a thread that waited for it was faster in the end; both are the same.
            if made.set(make(number)).is_ok()
                && let Some(share) = made.get()
            {
                learn(share);
            }
        }
    }

    /// What a share is; `None` where there are not so many. One that another thread took and does not finish is made here.
    pub(crate) fn get(&self, number: usize, make: impl Fn(usize) -> T) -> Option<&T> {
        let made = self.made.get(number)?;
        let mut spins = SPINS;
        while made.get().is_none() && spins > 0 {
            spins -= 1;
            std::hint::spin_loop();
        }
        // Made outside of its place: nobody is to wait for a thread that loses its core meanwhile.
        if made.get().is_none() {
            drop(made.set(make(number)));
        }
        made.get()
    }

    /// What all of them are, each as [`get`](Self::get) gives it.
    pub(crate) fn all(&self, make: impl Fn(usize) -> T) -> impl Iterator<Item = &T> {
        (0..self.made.len()).filter_map(move |number| self.get(number, &make))
    }

    /// What there is of them, and nothing is left.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = T> + use<T> {
        std::mem::take(&mut self.made).into_iter().filter_map(OnceLock::into_inner)
    }

    /// Takes `count` of them and does nothing with them.
    #[cfg(test)]
    pub(crate) fn lose(&self, count: usize) {
        self.next.fetch_add(count, Ordering::Relaxed);
    }
}
