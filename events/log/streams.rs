//! The streams of a batch, and where in it each ends.

/// Each stream of a batch with the index of its last event, in the order of the events. Kept for every batch and asked for few, so
/// it is cheap to make: a stream that comes again, but not at once, is there twice.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    /// The names, one behind the other.
    names: String,
    /// Where each name ends, and its event.
    ends: Vec<(usize, usize)>,
}

impl Streams {
    /// None yet, of a batch of so many events.
    pub(crate) fn with_capacity(events: usize) -> Self {
        Self { names: String::new(), ends: Vec::with_capacity(events) }
    }

    /// The next event of the batch, its `index`th, is one of `stream`; `again`: as was the one before.
    pub(crate) fn push(&mut self, stream: &str, index: usize, again: bool) {
        if let Some((_, last)) = self.ends.last_mut().filter(|_| again) {
            *last = index;
        } else {
            self.names.push_str(stream);
            self.ends.push((self.names.len(), index));
        }
    }

    /// Streams with the index of an event that was their last so far.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, usize)> {
        let start = |at: usize| if at == 0 { 0 } else { self.ends[at - 1].0 };
        self.ends.iter().enumerate().map(move |(at, (end, index))| (&self.names[start(at)..*end], *index))
    }

    /// The index of the stream's last event.
    pub(crate) fn last_of(&self, stream: &str) -> Option<usize> {
        self.iter().rev().find(|(name, _)| *name == stream).map(|(_, index)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::Streams;

    #[test]
    fn a_stream_ends_with_its_last_event() {
        let mut streams = Streams::with_capacity(2);
        assert_eq!((streams.iter().count(), streams.last_of("")), (0, None));
        for (index, (stream, again)) in
            [("a", false), ("bc", false), ("bc", true), ("a", false), ("", false)].into_iter().enumerate()
        {
            streams.push(stream, index, again);
        }
        let all: Vec<_> = streams.iter().collect();
        assert_eq!(all, [("a", 0), ("bc", 2), ("a", 3), ("", 4)]);
        for (stream, last) in [("a", Some(3)), ("bc", Some(2)), ("", Some(4)), ("b", None), ("abc", None)] {
            assert_eq!(streams.last_of(stream), last, "{stream}");
        }
    }
}
