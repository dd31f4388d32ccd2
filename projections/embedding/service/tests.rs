//! The service against a model that can be held still.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use crossbeam_channel::unbounded;

use super::*;
use crate::embedding::Precision;

/// A text with this in it makes the model panic.
const PANICS: &str = "panics";

/// A model whose vectors say how long a text is. It stops before each batch until it is let go, and reports it.
struct Scripted {
    identity: ModelIdentity,
    batches: Sender<Vec<String>>,
    go: Option<Receiver<()>>,
    /// Texts that were cut.
    cut: AtomicU64,
}

impl Embedder for Scripted {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.batches.send(texts.iter().map(|text| (*text).to_owned()).collect()).unwrap();
        if let Some(go) = &self.go {
            go.recv().unwrap();
        }
        assert!(!texts.iter().any(|text| text.contains(PANICS)), "the model does not expect this");
        match texts.iter().position(|text| text.contains("bad")) {
            Some(index) => Err(EmbedError::NotFinite { index }),
            None => Ok(texts.iter().map(|text| vec![text.len() as f32]).collect()),
        }
    }

    fn cut(&self, texts: &[&str]) -> Option<Vec<Vec<u32>>> {
        self.cut.fetch_add(texts.len() as u64, Ordering::SeqCst);
        assert!(!texts.iter().any(|text| text.contains(PANICS)), "nor does this");
        Some(texts.iter().map(|text| vec![text.len() as u32]).collect())
    }

    fn embed_cut(&self, texts: &[&str], tokens: Vec<Vec<u32>>) -> Result<Vec<Vec<f32>>, EmbedError> {
        let own: Vec<Vec<u32>> = texts.iter().map(|text| vec![text.len() as u32]).collect();
        assert_eq!(tokens, own, "they are those of these texts");
        self.embed(texts)
    }

    fn chunk(&self, text: &str) -> Vec<Range<usize>> {
        vec![Range { start: 0, end: text.len() }]
    }

    fn count_tokens(&self, text: &str) -> usize {
        text.len()
    }
}

fn scripted(go: Option<Receiver<()>>) -> (Arc<Scripted>, Receiver<Vec<String>>) {
    let (batches, seen) = unbounded();
    let identity = ModelIdentity {
        name: "scripted".into(),
        weights_sha256: String::new(),
        dimensions: 1,
        precision: Precision::Fp32,
    };
    (Arc::new(Scripted { identity, batches, go, cut: AtomicU64::new(0) }), seen)
}

fn options() -> ServiceOptions {
    ServiceOptions { batch_size: 4, ..ServiceOptions::new(Arc::new(|| Duration::ZERO)) }
}

#[test]
fn vectors_come_back_in_the_order_of_their_texts() {
    let (model, _seen) = scripted(None);
    let service = EmbeddingService::start(model, ServiceOptions { threads: 3, ..options() }).unwrap();
    let texts: Vec<String> = (0..101).map(|number| "x".repeat(number * 37 % 101)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let lengths: Vec<Vec<f32>> = texts.iter().map(|text| vec![text.len() as f32]).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(service.embed(&texts).unwrap(), lengths));
        }
    });
    assert_eq!(service.stats().texts, 404);
    assert_eq!(service.embed(&[]).unwrap(), Vec::<Vec<f32>>::new());
}

#[test]
fn texts_go_by_their_length_or_in_their_order() {
    for (length_sorted, then) in [
        (true, [["a", "bb", "cc", "ddd"], ["eee", "ffff", "ffff", "ggggg"]]),
        (false, [["ffff", "a", "eee", "bb"], ["ddd", "ggggg", "cc", "ffff"]]),
    ] {
        let (model, seen) = scripted(None);
        let service = EmbeddingService::start(model, ServiceOptions { length_sorted, ..options() }).unwrap();
        let texts = ["ffff", "a", "eee", "bb", "ddd", "ggggg", "cc", "ffff"];
        let vectors = service.embed(&texts).unwrap();
        let lengths: Vec<Vec<f32>> = texts.iter().map(|text| vec![text.len() as f32]).collect();
        assert_eq!(vectors, lengths);
        let passes: Vec<Vec<String>> = seen.try_iter().collect();
        let lengths = |pass: &[String]| pass.iter().map(String::len).collect::<Vec<_>>();
        let then = then.map(|pass| pass.map(str::len).to_vec());
        assert_eq!(passes.iter().map(|pass| lengths(pass)).collect::<Vec<_>>(), then, "{length_sorted}");
    }
}

#[test]
fn a_query_is_answered_while_bulk_stands_still() {
    let (go_sender, go) = unbounded();
    let (model, seen) = scripted(Some(go));
    let service = EmbeddingService::start(model, options()).unwrap();
    std::thread::scope(|scope| {
        let bulk = scope.spawn(|| service.embed(&["bulk"; 12]).unwrap());
        assert_eq!(seen.recv().unwrap(), ["bulk"; 4], "the one bulk thread is busy");
        let query = scope.spawn(|| service.embed_query("query").unwrap());
        assert_eq!(seen.recv().unwrap(), ["query"], "nothing was let go so far");
        for _ in 0..4 {
            go_sender.send(()).unwrap();
        }
        assert_eq!(query.join().unwrap()[..], [5.0]);
        assert_eq!(bulk.join().unwrap(), vec![vec![4.0]; 12]);
    });
}

#[test]
fn as_many_batches_run_at_once_as_there_are_threads() {
    let (go_sender, go) = unbounded();
    let (model, seen) = scripted(Some(go));
    let service = EmbeddingService::start(model, ServiceOptions { threads: 3, ..options() }).unwrap();
    std::thread::scope(|scope| {
        let bulk = scope.spawn(|| service.embed(&["bulk"; 20]).unwrap());
        for _ in 0..3 {
            assert_eq!(seen.recv().unwrap(), ["bulk"; 4], "nothing was let go so far");
        }
        while service.stats().bulk_waiting < 2 {
            std::thread::yield_now();
        }
        assert!(seen.is_empty(), "the other two batches wait for a thread");
        for _ in 0..5 {
            go_sender.send(()).unwrap();
        }
        assert_eq!(bulk.join().unwrap().len(), 20);
    });
}

#[test]
fn as_many_batches_are_cut_ahead_of_the_model_as_it_is_told() {
    for (threads, batches_ahead) in [(1, 0), (1, 2), (3, 1), (1, 100)] {
        let (go_sender, go) = unbounded();
        let (model, seen) = scripted(Some(go));
        let all = ServiceOptions { threads, batches_ahead, ..options() };
        let service = EmbeddingService::start(Arc::clone(&model) as Arc<dyn Embedder>, all).unwrap();
        let texts: Vec<String> = (1..=48).map(|length| "x".repeat(length)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        std::thread::scope(|scope| {
            let bulk = scope.spawn(|| service.embed(&texts).unwrap());
            for _ in 0..threads {
                seen.recv().unwrap();
            }
            // The first of the twelve batches found idle threads.
            let waiting = if batches_ahead == 0 { 12 - threads } else { batches_ahead.min(12 - threads) };
            while service.stats().bulk_waiting < waiting {
                std::thread::yield_now();
            }
            let cut = if batches_ahead == 0 { 0 } else { 4 * waiting as u64 };
            assert_eq!(model.cut.load(Ordering::SeqCst), cut, "{threads} {batches_ahead}");
            for _ in 0..12 {
                go_sender.send(()).unwrap();
            }
            assert_eq!(
                bulk.join().unwrap(),
                texts.iter().map(|text| vec![text.len() as f32]).collect::<Vec<_>>()
            );
        });
        let cut = if batches_ahead == 0 { 0 } else { 4 * (12 - threads as u64) };
        assert_eq!(
            (service.stats().texts, service.stats().cut_ahead),
            (48, cut),
            "{threads} {batches_ahead}"
        );
    }
}

#[test]
fn what_many_callers_wait_for_shares_a_batch() {
    let (go_sender, go) = unbounded();
    let (model, seen) = scripted(Some(go));
    let service = EmbeddingService::start(model, options()).unwrap();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| service.embed(&["first"]).unwrap());
        assert_eq!(seen.recv().unwrap(), ["first"]);
        let others: Vec<_> = (0..4).map(|_| scope.spawn(|| service.embed(&["other"]).unwrap())).collect();
        while service.stats().bulk_waiting < 4 {
            std::thread::yield_now();
        }
        go_sender.send(()).unwrap();
        assert_eq!(seen.recv().unwrap(), ["other"; 4]);
        go_sender.send(()).unwrap();
        first.join().unwrap();
        for other in others {
            assert_eq!(other.join().unwrap(), [[5.0]]);
        }
    });
    assert_eq!(service.stats().batches, 2);
}

#[test]
fn one_callers_bad_text_does_not_fail_the_others() {
    let (go_sender, go) = unbounded();
    let (model, seen) = scripted(Some(go));
    let service = EmbeddingService::start(model, options()).unwrap();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| service.embed(&["first"]));
        seen.recv().unwrap();
        let good = scope.spawn(|| service.embed(&["good"]));
        let bad = scope.spawn(|| service.embed(&["a bad text", "ok"]));
        while service.stats().bulk_waiting < 2 {
            std::thread::yield_now();
        }
        for _ in 0..4 {
            go_sender.send(()).unwrap();
        }
        first.join().unwrap().unwrap();
        assert_eq!(good.join().unwrap().unwrap(), [[4.0]]);
        // The texts were sorted by length; the error names the caller's own place.
        assert!(matches!(bad.join().unwrap(), Err(EmbedError::NotFinite { index: 0 })));
    });
}

#[test]
fn a_text_over_which_the_model_panics_fails_its_caller_alone() {
    let (go_sender, go) = unbounded();
    let (model, seen) = scripted(Some(go));
    let service = EmbeddingService::start(model, options()).unwrap();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| service.embed(&["first"]));
        seen.recv().unwrap();
        let good = scope.spawn(|| service.embed(&["good"]));
        let bad = scope.spawn(|| service.embed(&["one that panics", "ok"]));
        while service.stats().bulk_waiting < 2 {
            std::thread::yield_now();
        }
        for _ in 0..4 {
            go_sender.send(()).unwrap();
        }
        first.join().unwrap().unwrap();
        assert_eq!(good.join().unwrap().unwrap(), [[4.0]]);
        let Err(EmbedError::Panicked { texts: 2, what }) = bad.join().unwrap() else { panic!("it has none") };
        assert_eq!(what, "the model does not expect this");
    });
    // More often than there are threads: each goes on.
    for _ in 0..6 {
        go_sender.send(()).unwrap();
        assert!(matches!(service.embed_query(PANICS), Err(EmbedError::Panicked { texts: 1, .. })));
    }
    for _ in 0..2 {
        go_sender.send(()).unwrap();
    }
    assert_eq!(service.embed_query("query").unwrap()[..], [5.0]);
    assert_eq!(service.embed(&["bulk"]).unwrap(), [[4.0]]);
}

#[test]
fn a_text_over_which_cutting_ahead_panics_is_told_by_who_embeds_it() {
    let (model, _seen) = scripted(None);
    let service = EmbeddingService::start(model, options()).unwrap();
    let mut texts = vec!["text"; 12];
    texts[11] = "the longest panics";
    assert!(matches!(service.embed(&texts), Err(EmbedError::Panicked { texts: 4, .. })));
    assert_eq!(service.embed(&texts[..11]).unwrap().len(), 11);
}

#[test]
fn a_query_asked_twice_runs_once_until_it_is_too_old() {
    let (model, seen) = scripted(None);
    let seconds = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&seconds);
    let now = Arc::new(move || Duration::from_secs(clock.load(Ordering::Relaxed)));
    let service = EmbeddingService::start(model, ServiceOptions::new(now)).unwrap();
    for _ in 0..3 {
        assert_eq!(service.embed_query("same").unwrap()[..], [4.0]);
    }
    assert_eq!(seen.try_iter().count(), 1);
    seconds.store(3_600, Ordering::Relaxed);
    service.embed_query("same").unwrap();
    service.clear_cache();
    service.embed_query("same").unwrap();
    assert_eq!(seen.try_iter().count(), 2);
    let cache = service.stats().cache;
    assert_eq!((cache.hits, cache.misses), (2, 3));
}

#[test]
fn too_many_waiting_queries_are_refused_at_once() {
    let (go_sender, go) = unbounded();
    let (model, seen) = scripted(Some(go));
    let options = ServiceOptions { queue_max: 2, batch_size: 1, ..options() };
    let service = EmbeddingService::start(model, options).unwrap();
    let service = &service;
    std::thread::scope(|scope| {
        let ask = |text: &'static str| scope.spawn(move || service.embed_query(text));
        let mut asked = vec![ask("a"), ask("b")];
        seen.recv().unwrap();
        seen.recv().unwrap();
        asked.extend([ask("c"), ask("d")]);
        while service.stats().queries_waiting < 2 {
            std::thread::yield_now();
        }
        assert!(matches!(service.embed_query("e"), Err(EmbedError::Busy { waiting: 2 })));
        for _ in 0..4 {
            go_sender.send(()).unwrap();
        }
        for query in asked {
            query.join().unwrap().unwrap();
        }
    });
}

/// Waits until so many threads have nothing to do.
fn wait_for_idle(service: &EmbeddingService, count: usize) {
    while service.counts.idle.load(Ordering::Relaxed) != count {
        std::thread::yield_now();
    }
}

#[test]
fn threads_that_have_nothing_to_do_are_counted() {
    let (go_sender, go) = unbounded();
    let (model, seen) = scripted(Some(go));
    let service = EmbeddingService::start(model, ServiceOptions { threads: 2, ..options() }).unwrap();
    wait_for_idle(&service, 3);
    std::thread::scope(|scope| {
        let bulk = scope.spawn(|| service.embed(&["bulk"]).unwrap());
        seen.recv().unwrap();
        wait_for_idle(&service, 2);
        let query = scope.spawn(|| service.embed_query("query").unwrap());
        seen.recv().unwrap();
        wait_for_idle(&service, 1);
        for _ in 0..2 {
            go_sender.send(()).unwrap();
        }
        bulk.join().unwrap();
        query.join().unwrap();
    });
    wait_for_idle(&service, 3);
}

#[test]
fn a_thread_leaves_those_that_have_nothing_to_do_their_share_of_the_queries() {
    for (waiting, idle, then) in
        [(0, 3, 1), (3, 0, 4), (3, 1, 2), (3, 3, 1), (4, 1, 3), (20, 0, 8), (20, 2, 7)]
    {
        let (model, seen) = scripted(None);
        let (sender, queries) = bounded(100);
        let (answer, _answers) = bounded(100);
        let job =
            || Job { texts: vec!["query".to_owned()], tokens: None, places: vec![0], answer: answer.clone() };
        (0..waiting).for_each(|_| sender.send(job()).unwrap());
        let counts = Arc::new(Counts { idle: AtomicUsize::new(idle), ..Counts::default() });
        let queues = Queues { queries, bulk: never() };
        let worker = Worker { embedder: model, queues, batch_size: 8, counts };
        worker.run_queries(job());
        assert_eq!(seen.recv().unwrap().len(), then, "{waiting} wait, {idle} are idle");
        assert_eq!(worker.queues.queries.len(), waiting + 1 - then);
    }
}
