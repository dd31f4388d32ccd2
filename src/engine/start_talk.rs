//! Starting what agents say to each other: open the projection, fold the tail, start its threads.

use std::collections::VecDeque;
use std::fs;
use std::sync::Arc;
use std::thread::JoinHandle;

use caxton_events::Seq;
use caxton_events::log::{Log, Reader, Series};
use caxton_projections::driver::catch_up;
use caxton_projections::projection::Projection as _;
use caxton_projections::talk::{self, Talk, TalkStore};
use caxton_projections::view::{Part, Positions};
use crossbeam_channel::{Receiver, Sender, bounded};

use super::Recovery;
use super::deadlines::Deadlines;
use super::erase::Scrub;
use super::inboxes::Wakers;
use super::message_router::MessageRouter;
use super::rebuild::Offer;
use super::start::{EngineOptions, StartError, StartStep};
use super::talk::Request;
use super::talk_fold::{TalkFold, store};
use super::talk_redo::Lost;
use super::told;
use crate::commands::talk::Numbers;
use crate::failure;

/// Groups that are decided and not folded at the most: one syncs while the next is decided.
const GROUPS_IN_FLIGHT: usize = 2;

/// Opens agents and conversations and brings them up to the log. They are rebuilt when their file is missing, damaged, of
/// another version, or ahead of the log.
pub(super) fn open_talk(
    options: &EngineOptions,
    log: &Reader,
    recovery: &mut Recovery,
    progress: &mut dyn FnMut(StartStep),
) -> Result<(Talk, TalkStore), StartError> {
    let dir = options.data_dir.join("talk");
    let opened = match TalkStore::open(&dir) {
        Ok((talk, _)) if talk.checkpoint() > log.head().seq => {
            Err(format!("it was at {}, the log ends at {}", talk.checkpoint(), log.head().seq))
        }
        Ok(opened) => Ok(opened),
        Err(error) => Err(failure::chain(&error)),
    };
    let (mut talk, store) = match opened {
        Ok(opened) => opened,
        Err(reason) => {
            tracing::warn!(%reason, "agents and conversations are rebuilt from the log");
            recovery.talk_rebuilt = Some(reason);
            let failed = |source| StartError::Directory { path: dir.clone(), source };
            if dir.exists() {
                fs::remove_dir_all(&dir).map_err(failed)?;
            }
            TalkStore::open(&dir).map_err(StartError::Talk)?
        }
    };
    let mut folding = |at: Seq, of| progress(StartStep::Folding { projection: Part::Talk.name(), at, of });
    catch_up(log, &mut talk, &mut folding).map_err(StartError::CatchUp)?;
    Ok((talk, store))
}

/// The threads of messages.
pub(super) struct Talking {
    pub(super) requests: Sender<Request>,
    pub(super) nudge: Sender<()>,
    pub(super) router: JoinHandle<()>,
    pub(super) fold: JoinHandle<()>,
    pub(super) store: JoinHandle<()>,
    pub(super) stop_store: Sender<()>,
    pub(super) scrub: Sender<Scrub>,
    pub(super) scrub_store: Sender<Scrub>,
}

/// Starts the router, the fold and the store.
pub(super) fn start_talk(
    options: &EngineOptions,
    log: &Arc<Log>,
    (talk, talk_store): (Talk, TalkStore),
    (positions, offers): (&Arc<Positions>, Receiver<Offer<talk::TalkFold>>),
    wakers: &Arc<Wakers>,
) -> Result<Talking, StartError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(StartError::Random)?;
    let (requests, incoming) = bounded(options.requests_max.max(1));
    let (folds, groups) = bounded(GROUPS_IN_FLIGHT);
    let (stop_store, stop) = bounded::<()>(0);
    let (nudge, nudges) = bounded(1);
    let (scrub, scrubs) = bounded(0);
    let (scrub_store, store_scrubs) = bounded(0);
    let (lives, fold_lives) = bounded::<()>(1);
    let router = MessageRouter {
        log: Arc::clone(log),
        talk: talk.reader(),
        requests: incoming,
        folds,
        fold_lives,
        positions: Arc::clone(positions),
        settings: options.talk,
        numbers: Numbers::seeded(&seed),
        handed: 0,
        under_way: VecDeque::new(),
        spare: Vec::new(),
        series: Series::default(),
        series_broken: 0,
        deadlines: Deadlines::default(),
        deferred: VecDeque::new(),
        must_settle: false,
    };
    let fold = TalkFold {
        talk,
        log: log.reader(),
        writer: Arc::clone(log),
        lost: Lost::default(),
        groups,
        nudges,
        offers,
        offered: None,
        scrubs,
        positions: Arc::clone(positions),
        wakers: Arc::clone(wakers),
        knows_closed: false,
        taken: 0,
        recorded: Seq::ZERO,
    };
    let at = (Part::Talk, positions);
    let fold = told::spawn("talk-fold", at, move || {
        // Dropped in whatever way the thread ends: the router then waits for it no longer.
        let _lives = lives;
        fold.run();
    });
    let fold = fold.map_err(StartError::Thread)?;
    let router = told::spawn("message-router", at, || router.run()).map_err(StartError::Thread)?;
    let store = told::spawn("talk-store", at, move || store(talk_store, &stop, &store_scrubs));
    let store = store.map_err(StartError::Thread)?;
    Ok(Talking { requests, nudge, router, fold, store, stop_store, scrub, scrub_store })
}
