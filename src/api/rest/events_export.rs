//! `GET /events/export`, `/memory/export/tables` and `/conversations/export`: files that are made while they are sent, piece by piece.

use std::fs::File;
use std::io::Read as _;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use caxton_events::{Seq, Timestamp};
use caxton_projections::view::{Part, View, Wait};
use caxton_tools::transfer::ExportError;
use caxton_tools::transfer::events::{EventExport, EventFormat, Wanted};
use caxton_tools::transfer::memory::{Embed, MemoryExport, MemoryTable};
use caxton_tools::transfer::talk::{TalkExport, TalkTable};
use futures::{StreamExt as _, stream};
use tokio::sync::OwnedSemaphorePermit;

use super::Api;
use super::call::{Call, ReadContext};
use super::events::wanted;
use super::moment::{Moment, marked};
use super::problem::Problem;
use super::refusals::{begins_at, embedding_failed, graph_failed, internal, log_unreadable, no_model};
use crate::engine::copies::CopyError;

/// Bytes of a piece of a file that lies there already.
const PIECE_BYTES: usize = 256 << 10;
/// Copies of the graph that lie on the disk until they are sent.
pub(super) const OPEN_COPIES_MAX: usize = 4;
/// After how many seconds another one may be made.
const COPY_RETRY_SECONDS: u32 = 30;
const FILTER: &[&str] =
    &["kinds", "actor", "stream", "correlation_id", "since", "until", "from_seq", "to_seq", "format"];

/// `GET /events/export`.
pub(super) async fn events(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[FILTER])?;
    let formats = [("jsonl", EventFormat::Lines), ("parquet", EventFormat::Parquet)];
    let format = query.choice("format", &formats).unwrap_or(EventFormat::Lines);
    let given = query.integer("from_seq", 1..=u64::MAX).map(Seq);
    let from = given.unwrap_or(Seq::ZERO);
    let until = query.integer("to_seq", 1..=u64::MAX).map(Seq);
    if let Some(to) = until.filter(|to| *to < from) {
        let message = format!("lies before from_seq ({})", from.0);
        let remedy = "give a later position, or leave it out";
        query.complain("to_seq", Some(&to.0.to_string()), &message, remedy);
    }
    let mut filter = wanted(&mut query).filter;
    filter.until = until;
    query.finish()?;
    begins_at(api.engine.log(), &[("from_seq", given), ("to_seq", until)])?;
    let media_type = match format {
        EventFormat::Lines => "application/x-ndjson",
        EventFormat::Parquet => "application/vnd.apache.parquet",
    };
    let (log, signer) = (api.engine.log().clone(), api.engine.signer().clone());
    let begin = move |_: &View| {
        let wanted = Wanted { from, filter };
        let mut export =
            EventExport::begin(log, &wanted, format, Some(signer)).map_err(|error| failed(&error))?;
        Ok(move |_: &View| export.next_piece().map_err(|error| failed(&error)))
    };
    sent(api, media_type, begin).await
}

/// What the memory is exported as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TableFormat {
    Parquet,
    Sqlite,
}

/// `GET /memory/export/tables`: the memory of all agents.
pub(super) async fn tables(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[&["format", "table", "include_embeddings", "as_of", "min_seq"]])?;
    let context = ReadContext::take(&call, &mut query);
    let formats = [("parquet", TableFormat::Parquet), ("sqlite", TableFormat::Sqlite)];
    let format = query.choice("format", &formats).unwrap_or(TableFormat::Parquet);
    let table = query.choice("table", &MemoryTable::ALL.map(|table| (table.name(), table)));
    let with_vectors = query.flag("include_embeddings").unwrap_or(false);
    let Some(table) = table.filter(|_| format == TableFormat::Parquet) else {
        if format == TableFormat::Parquet && query.is_fine() {
            query.complain("table", None, "is missing", "name entities, observations or relations");
        }
        if context.as_of.is_some() {
            let remedy = "leave it out: the file holds the history of every row";
            query.complain("as_of", None, "is not for format=sqlite", remedy);
        }
        query.finish()?;
        api.moment(&context, Wait::Applied).await?;
        return sqlite(api).await;
    };
    query.finish()?;
    if with_vectors && api.engine.view().semantic().is_none() {
        return Err(no_model());
    }
    let moment = api.moment(&context, Wait::Applied).await?.unwrap_or_else(|| Moment {
        seq: api.engine.view().positions().get(Part::Graph).seq,
        recorded_at: Timestamp::EPOCH,
        erased_since: None,
    });
    let begin = move |view: &View| {
        let export = MemoryExport::begin(view.graph(), moment.seq, table, with_vectors);
        let mut export = export.map_err(|error| failed(&error))?;
        Ok(move |view: &View| {
            let semantic = view.semantic().filter(|_| with_vectors);
            // What is remembered was embedded when it was folded.
            let embed = semantic.map(|semantic| {
                move |texts: &[&str]| semantic.vectors.vectors_of(texts, &*semantic.embedding)
            });
            let embed = embed.as_ref().map(|embed| embed as Embed<'_>);
            export.next_piece(embed).map_err(|error| failed(&error))
        })
    };
    Ok(marked(sent(api, "application/vnd.apache.parquet", begin).await?, moment))
}

/// The file of the graph as it is, compacted: it is made beside the graph first, and has no name any more while it is sent.
async fn sqlite(api: Api) -> Result<Response, Problem> {
    let later = |problem: Problem| problem.retry_after(COPY_RETRY_SECONDS);
    let place = api.open_copies.take().await.map_err(later)?;
    let turn = api.copies.take().await.map_err(later)?;
    let engine = api.engine.clone();
    let begin = move |_: &View| {
        let file = engine.copy_graph().map_err(|error| not_copied(&error))?;
        // The next one can be made while this one is sent.
        drop(turn);
        let mut copy = Copied { file, _place: place };
        Ok(move |_: &View| copy.next_piece())
    };
    sent(api, "application/vnd.sqlite3", begin).await
}

/// A copy of the graph that is being sent. It takes room on the disk until it is, and so long a place among those that are.
struct Copied {
    file: File,
    _place: OwnedSemaphorePermit,
}

impl Copied {
    fn next_piece(&mut self) -> Result<Option<Vec<u8>>, Problem> {
        let mut piece = vec![0; PIECE_BYTES];
        let read = self.file.read(&mut piece).map_err(|error| internal(&error))?;
        piece.truncate(read);
        Ok((read > 0).then_some(piece))
    }
}

fn not_copied(error: &CopyError) -> Problem {
    match error {
        CopyError::Graph(error) => graph_failed(error),
        CopyError::Open(error) => internal(error),
    }
}

/// `GET /conversations/export`: agents, conversations and messages of all.
pub(super) async fn talk(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[&["table", "through", "min_seq"]])?;
    let min_seq = call.min_seq(&mut query);
    let (through, head) = (query.integer("through", 0..=u64::MAX).map(Seq), api.engine.log().head().seq);
    if let Some(behind) = through.filter(|through| *through > head) {
        let message = format!("lies behind the end of the log ({})", head.0);
        let remedy = "give a position up to that, or leave it out";
        query.complain("through", Some(&behind.0.to_string()), &message, remedy);
    }
    let table = query.choice("table", &TalkTable::ALL.map(|table| (table.name(), table)));
    if table.is_none() && query.is_fine() {
        query.complain("table", None, "is missing", "name agents, conversations or messages");
    }
    query.finish()?;
    let table = table.unwrap_or(TalkTable::Agents);
    api.talk_caught_up(min_seq.max(through)).await?;
    let log = api.engine.log().clone();
    let begin = move |view: &View| {
        let checkpoint = view.talk().read().checkpoint;
        let through = through.unwrap_or(checkpoint);
        let export = TalkExport::begin(view.talk().clone(), log, through, table);
        let mut export = export.map_err(|error| failed(&error))?;
        Ok(move |_: &View| export.next_piece().map_err(|error| failed(&error)))
    };
    sent(api, "application/vnd.apache.parquet", begin).await
}

/// An answer of pieces. Each is a read of its own, so that a slow client keeps nothing from others; the first is made
/// before the answer begins, so that what is broken is still a problem with a status.
async fn sent<N>(
    api: Api,
    media_type: &'static str,
    begin: impl FnOnce(&View) -> Result<N, Problem> + Send + 'static,
) -> Result<Response, Problem>
where
    N: FnMut(&View) -> Result<Option<Vec<u8>>, Problem> + Send + 'static,
{
    let next = api.read(begin).await?;
    let (first, next) = piece(&api, next).await?;
    let rest = stream::unfold(next.map(|next| (api, next)), |state| async move {
        let (api, next) = state?;
        // The status is out already when a piece fails: breaking off tells the client that the file is not whole.
        match piece(&api, next).await {
            Ok((bytes, next)) => Some((Ok(bytes), next.map(|next| (api, next)))),
            Err(problem) => Some((Err(std::io::Error::other(problem.code())), None)),
        }
    });
    let first = stream::once(async move { Ok::<_, std::io::Error>(first) });
    // Who compresses it asks once more behind the end.
    let mut response = Response::new(Body::from_stream(first.chain(rest).fuse()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    Ok(response)
}

/// The next piece that holds something, and what makes the one behind it; nothing makes one behind the last.
async fn piece<N>(api: &Api, mut next: N) -> Result<(Bytes, Option<N>), Problem>
where
    N: FnMut(&View) -> Result<Option<Vec<u8>>, Problem> + Send + 'static,
{
    loop {
        let made = api.read(move |view| Ok((next(view)?, next))).await?;
        next = match made {
            (None, _) => return Ok((Bytes::new(), None)),
            (Some(piece), next) if !piece.is_empty() => return Ok((piece.into(), Some(next))),
            (Some(_), next) => next,
        };
    }
}

fn failed(error: &ExportError) -> Problem {
    match error {
        ExportError::Log(error) => log_unreadable(error),
        ExportError::Graph(error) => graph_failed(error),
        ExportError::Embed(error) => embedding_failed(error),
        ExportError::Store(_)
        | ExportError::Head(_)
        | ExportError::Root { .. }
        | ExportError::Json(_)
        | ExportError::Table(_) => internal(error),
    }
}
