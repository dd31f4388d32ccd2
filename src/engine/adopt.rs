//! The memory writer takes another graph in place of the one in use, between two groups of commands.

use std::sync::atomic::Ordering;

use caxton_events::Seq;
use caxton_projections::driver::catch_up;
use caxton_projections::graph::Graph;
use caxton_projections::view::Part;

use super::memory_writer::MemoryWriter;
use super::rebuild::Offer;
use super::start_graph::unmark_damaged;
use crate::commands::Ids;
use crate::failure;

impl MemoryWriter {
    /// Folds what `offer` lacks, puts its files in place and goes on with it. What fails leaves the one in use.
    pub(super) fn adopt(&mut self, Offer { fold, answer }: Offer<Graph>) {
        let adopted = self.swap(fold);
        let _ = answer.send(adopted);
    }

    fn swap(&mut self, mut new: Graph) -> Result<Seq, String> {
        catch_up(&self.log.reader(), &mut new, &mut |_, _| ()).map_err(|error| failure::chain(&error))?;
        new.close().map_err(|error| failure::chain(&error))?;
        let had_one = self.graph.is_some();
        if let Some(old) = self.graph.take() {
            if !self.reader.suspend() {
                self.graph = Some(old);
                return Err("a query did not end in time to put the new one in place; try again".to_owned());
            }
            // The folder is renamed next: whatever SQLite still has to say about this file can wait for its next opening.
            if let Err(error) = old.close() {
                tracing::warn!(error = %failure::chain(&error), "could not close the graph that is replaced in order");
            }
        }
        let swapped = self.place.swap().map_err(|error| failure::chain(&error));
        if let Err(error) = swapped {
            if had_one {
                self.reopen()?;
            }
            return Err(error);
        }
        if let Err(error) = self.reopen() {
            // What was folded well a moment ago cannot be opened: the old one is better than none.
            if had_one {
                self.place.undo().map_err(|undone| format!("{error}; {}", failure::chain(&undone)))?;
                self.reopen()?;
            }
            return Err(error);
        }
        if let Err(error) = unmark_damaged(self.place.data_dir()) {
            tracing::warn!(%error, "could not remove the mark of a damaged graph; the next start rebuilds it once more");
        }
        self.damaged.store(false, Ordering::Relaxed);
        self.awaited = None;
        let seq = self.checkpoint();
        self.positions.memory_changed();
        self.positions.advance(Part::Graph, seq);
        Ok(seq)
    }

    /// Opens what is in place, for decisions and for queries.
    fn reopen(&mut self) -> Result<(), String> {
        let opened = Graph::open(self.place.current(), &self.sqlite);
        let mut graph = opened.map_err(|error| {
            let error = failure::chain(&error);
            self.reader.refuse(&error);
            self.positions.stop(Part::Graph, error.clone());
            error
        })?;
        graph.lend_to(&self.reader);
        self.graph = Some(graph);
        let next = self.reader.next_id().map_err(|error| failure::chain(&error))?;
        self.ids = Ids::starting_at(next);
        Ok(())
    }
}
