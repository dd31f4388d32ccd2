//! Server-sent events out of a stream of bytes that may be cut anywhere.
//!
//! Lines end with LF, CR or CR LF; `data` of several lines is joined by LF; comments and unknown fields are passed
//! over. How many bytes there may be is the business of whoever reads them.

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Event {
    /// Its type; empty when none was given.
    pub(super) name: String,
    /// Its lines of data.
    pub(super) data: String,
}

/// What has come so far.
#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    event: Event,
    has_data: bool,
    /// The last byte was a CR: an LF right after it belongs to the same end of line.
    after_cr: bool,
    /// A line was seen, so that no byte order mark can come any more.
    begun: bool,
}

impl Parser {
    /// Takes `bytes` and adds the events that they complete to `events`.
    pub(super) fn feed(&mut self, bytes: &[u8], events: &mut Vec<Event>) {
        for &byte in bytes {
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => (),
                b'\n' | b'\r' => self.end_line(events),
                _ => self.line.push(byte),
            }
        }
    }

    /// Bytes of the event that is not whole yet.
    pub(super) fn held(&self) -> usize {
        self.line.len() + self.event.name.len() + self.event.data.len()
    }

    /// The stream has ended. An event whose last line is whole counts, though its empty line is missing; a line that
    /// broke off does not.
    pub(super) fn finish(mut self) -> Option<Event> {
        let mut events = Vec::new();
        self.line.clear();
        self.end_line(&mut events);
        events.pop()
    }

    fn end_line(&mut self, events: &mut Vec<Event>) {
        let line = std::mem::take(&mut self.line);
        let mut line = String::from_utf8_lossy(&line);
        if !std::mem::replace(&mut self.begun, true)
            && let Some(rest) = line.strip_prefix('\u{feff}')
        {
            line = rest.to_owned().into();
        }
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if std::mem::take(&mut self.has_data) {
                events.push(event);
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            "event" => value.clone_into(&mut self.event.name),
            // A comment has an empty field; `id` and `retry` are for clients that come back.
            _ => (),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use proptest::prelude::*;

    use super::*;

    /// The events of `chunks`, in order.
    fn parse<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Event> {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        for chunk in chunks {
            parser.feed(chunk, &mut events);
        }
        events.extend(parser.finish());
        events
    }

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn events_are_read_as_the_standard_says() {
        for (text, events) in [
            ("data: a\n\ndata: b\n\n", vec![event("", "a"), event("", "b")]),
            ("event: x\ndata:a\ndata:  b\n\n", vec![event("x", "a\n b")]),
            (": ping\n\nid: 7\nretry: 3\ndata\n\n", vec![event("", "")]),
            ("\u{feff}data: a\r\n\r\ndata: b\r\r", vec![event("", "a"), event("", "b")]),
            ("event: x\n\ndata: a\n\n", vec![event("", "a")]),
            ("data: a\n", vec![event("", "a")]),
            ("data: a\n\ndata: {\"half", vec![event("", "a")]),
            ("data: \u{e9}\u{1f980}\n\n", vec![event("", "\u{e9}\u{1f980}")]),
            ("", vec![]),
        ] {
            assert_eq!(parse([text.as_bytes()]), events, "{text:?}");
            assert_eq!(parse(text.as_bytes().chunks(1)), events, "{text:?} byte by byte");
        }
    }

    proptest! {
        #[test]
        fn where_the_stream_is_cut_changes_nothing(
            lines in prop::collection::vec("(data|event|id|:)?:? ?[a-z\u{e9}\u{1f980}\\{\\}\":]{0,8}(\n|\r|\r\n|\n\n)", 0..24),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let text: String = lines.concat();
            let bytes = text.as_bytes();
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            places.extend([0, bytes.len()]);
            places.sort_unstable();
            let chunks = places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
            prop_assert_eq!(parse(chunks), parse([bytes]));
        }

        #[test]
        fn what_is_written_is_read(events in prop::collection::vec(("[a-z_]{0,6}", "[^\r]{0,20}"), 0..8)) {
            let mut text = String::new();
            for (name, data) in &events {
                if !name.is_empty() {
                    text.extend(["event: ", name, "\n"]);
                }
                for line in data.split('\n') {
                    text.extend(["data: ", line, "\n"]);
                }
                text.push('\n');
            }
            let expected: Vec<Event> = events.iter().map(|(name, data)| event(name, data)).collect();
            prop_assert_eq!(parse(text.as_bytes().chunks(3)), expected);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            parse(bytes.chunks(7));
        }
    }
}
