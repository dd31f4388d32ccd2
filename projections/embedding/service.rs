//! One door to the model for everybody: texts of many callers share passes, and queries go before bulk.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use caxton_events::limits::EMBEDDING_QUEUE_MAX;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, never, select};

use super::embedder::{EmbedError, Embedder, ModelIdentity, guarded};
use super::frequent::Frequent;
use super::query_cache::{CacheOptions, CacheStats, QueryCache};

/// How the service runs.
#[derive(Clone)]
pub struct ServiceOptions {
    /// Threads for bulk and queries. One more serves queries alone, so that none waits behind bulk. Default: 1.
    pub threads: usize,
    /// Texts of all callers that one thread takes together, of queries no more than its share while other threads have nothing to
    /// do. Default: 32. At least 1.
    pub batch_size: usize,
    /// Batches of bulk that their caller cuts into tokens while the model is at others. Default: 2; 0: the model's threads cut
    /// all.
    pub batches_ahead: usize,
    /// Jobs that may wait, of queries and of bulk each. Default: [`EMBEDDING_QUEUE_MAX`]. At least 1.
    pub queue_max: usize,
    /// The cache of queries.
    pub cache: CacheOptions,
    /// Whether texts of one caller go through the model by their length, so that passes are of texts alike; otherwise in their
    /// order. Default: yes.
    pub length_sorted: bool,
    /// Whether queries are counted, so that those asked most can be computed ahead after a start. Default: no.
    pub count_queries: bool,
    /// Time since some fixed moment, never going back: what the cache measures age with.
    pub now: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl ServiceOptions {
    /// The defaults, with the clock `now`.
    pub fn new(now: Arc<dyn Fn() -> Duration + Send + Sync>) -> Self {
        Self {
            threads: 1,
            batch_size: 32,
            batches_ahead: 2,
            queue_max: EMBEDDING_QUEUE_MAX,
            cache: CacheOptions::default(),
            length_sorted: true,
            count_queries: false,
            now,
        }
    }
}

/// What the service did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct ServiceStats {
    /// Texts that went through the model.
    pub texts: u64,
    /// Batches that they went in.
    pub batches: u64,
    /// Texts of them whose tokens were cut before the model came to them.
    pub cut_ahead: u64,
    /// Queries that wait now.
    pub queries_waiting: usize,
    /// Jobs of bulk that wait now, of up to `batch_size` texts each.
    pub bulk_waiting: usize,
    /// The cache of queries.
    pub cache: CacheStats,
}

/// A model behind named threads and bounded queues.
///
/// [`Embedder::embed`] is bulk: it waits for room in the queue. [`embed_query`](Self::embed_query) is answered from a
/// cache or by the next free thread. Dropping the service finishes what was queued and ends its threads.
pub struct EmbeddingService {
    embedder: Arc<dyn Embedder>,
    cache: Mutex<QueryCache>,
    /// `None`: nothing is counted.
    frequent: Option<Mutex<Frequent>>,
    now: Arc<dyn Fn() -> Duration + Send + Sync>,
    batch_size: usize,
    /// Threads for bulk.
    bulk_threads: usize,
    batches_ahead: usize,
    length_sorted: bool,
    /// `None` only while the service is dropped.
    queues: Option<Queues<Sender<Job>>>,
    threads: Vec<JoinHandle<()>>,
    counts: Arc<Counts>,
}

#[derive(Clone)]
struct Queues<End> {
    queries: End,
    bulk: End,
}

#[derive(Default)]
struct Counts {
    texts: AtomicU64,
    batches: AtomicU64,
    cut_ahead: AtomicU64,
    /// Threads that have nothing to do.
    idle: AtomicUsize,
}

/// Some texts of one caller.
struct Job {
    texts: Vec<String>,
    /// Those of the texts, where they were cut ahead.
    tokens: Option<Vec<Vec<u32>>>,
    /// The place of each among the caller's texts.
    places: Vec<usize>,
    answer: Sender<Answer>,
}

/// Vectors with their places among the caller's texts.
type Answer = Result<Vec<(usize, Vec<f32>)>, EmbedError>;

/// The vector of a query, known or on its way.
pub struct QueryVector<'a> {
    service: &'a EmbeddingService,
    text: &'a str,
    state: QueryState,
}

enum QueryState {
    Known(Arc<[f32]>),
    Asked(Receiver<Answer>),
}

impl QueryVector<'_> {
    /// Whether the model is still to be waited for.
    pub const fn is_under_way(&self) -> bool {
        matches!(self.state, QueryState::Asked(_))
    }

    /// The vector, once it is there.
    ///
    /// # Errors
    ///
    /// What the model says.
    pub fn vector(self) -> Result<Arc<[f32]>, EmbedError> {
        let Self { service, text, state } = self;
        let answers = match state {
            QueryState::Known(vector) => return Ok(vector),
            QueryState::Asked(answers) => answers,
        };
        let vectors = answers.recv().map_err(|_| EmbedError::Stopped)??;
        let vector: Arc<[f32]> =
            vectors.into_iter().next().map(|(_, vector)| Arc::from(vector)).ok_or(EmbedError::Stopped)?;
        service.cache().put(text, Arc::clone(&vector), (service.now)());
        Ok(vector)
    }
}

impl EmbeddingService {
    /// Starts the service's threads.
    ///
    /// # Errors
    ///
    /// The system's, when it gives no thread.
    pub fn start(embedder: Arc<dyn Embedder>, options: ServiceOptions) -> std::io::Result<Self> {
        let queue_max = options.queue_max.max(1);
        let (query_sender, query_receiver) = bounded(queue_max);
        let (bulk_sender, bulk_receiver) = bounded(queue_max);
        let receivers = Queues { queries: query_receiver, bulk: bulk_receiver };
        let batch_size = options.batch_size.max(1);
        let counts = Arc::<Counts>::default();
        let mut threads = Vec::new();
        let bulk_threads = options.threads.max(1);
        for index in 0..=bulk_threads {
            // Who takes no bulk must not hold its end: where nobody takes it any more, who has some is told so.
            let bulk = if index == 0 { never() } else { receivers.bulk.clone() };
            let worker = Worker {
                embedder: Arc::clone(&embedder),
                queues: Queues { queries: receivers.queries.clone(), bulk },
                batch_size,
                counts: Arc::clone(&counts),
            };
            // Where a thread cannot start, those before it end, because nobody holds the queues' other ends.
            threads.push(if index == 0 {
                let thread = std::thread::Builder::new().name("embed-query".to_owned());
                thread.spawn(move || worker.serve_queries())?
            } else {
                let thread = std::thread::Builder::new().name(format!("embed-bulk-{index}"));
                thread.spawn(move || worker.serve_all())?
            });
        }
        Ok(Self {
            embedder,
            cache: Mutex::new(QueryCache::new(options.cache)),
            frequent: options.count_queries.then(Mutex::default),
            now: options.now,
            batch_size,
            bulk_threads,
            batches_ahead: options.batches_ahead,
            length_sorted: options.length_sorted,
            queues: Some(Queues { queries: query_sender, bulk: bulk_sender }),
            threads,
            counts,
        })
    }

    /// The vector of a query, from the cache or from the model before any bulk.
    ///
    /// # Errors
    ///
    /// [`EmbedError::Busy`] when too many queries wait already, and what the model says.
    pub fn embed_query(&self, text: &str) -> Result<Arc<[f32]>, EmbedError> {
        self.begin_query(text)?.vector()
    }

    /// The same, which does not wait for the model: until [`QueryVector::vector`] is called there is time for something else.
    ///
    /// # Errors
    ///
    /// [`EmbedError::Busy`] when too many queries wait already.
    pub fn begin_query<'a>(&'a self, text: &'a str) -> Result<QueryVector<'a>, EmbedError> {
        self.note_query(text);
        if let Some(vector) = self.cache().get(text, (self.now)()) {
            return Ok(QueryVector { service: self, text, state: QueryState::Known(vector) });
        }
        let Some(queues) = &self.queues else { return Err(EmbedError::Stopped) };
        let (answer, answers) = bounded(1);
        let job = Job { texts: vec![text.to_owned()], tokens: None, places: vec![0], answer };
        queues.queries.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => EmbedError::Busy { waiting: queues.queries.len() },
            TrySendError::Disconnected(_) => EmbedError::Stopped,
        })?;
        Ok(QueryVector { service: self, text, state: QueryState::Asked(answers) })
    }

    /// Counts a query as asked that was answered without its vector.
    pub fn note_query(&self, text: &str) {
        if let Some(mut frequent) = self.counted() {
            frequent.count(text);
        }
    }

    /// Forgets the queries that were asked so far.
    pub fn clear_cache(&self) {
        self.cache().clear();
        if let Some(mut frequent) = self.counted() {
            frequent.clear();
        }
    }

    /// The `most` queries that were asked most often, with their counts; none where nothing is counted.
    pub fn frequent(&self, most: usize) -> Vec<(String, u64)> {
        self.counted().map_or_else(Vec::new, |frequent| frequent.top(most))
    }

    /// Computes the vectors of these queries and counts them as asked so often; how many it computed. As bulk: queries that are
    /// asked go before.
    ///
    /// # Errors
    ///
    /// What the model says.
    pub fn warm(&self, queries: &[(String, u64)]) -> Result<usize, EmbedError> {
        let texts: Vec<&str> = queries.iter().map(|(query, _)| query.as_str()).collect();
        let vectors = self.embed(&texts)?;
        // The most frequent is put last: it is the last to be forgotten.
        for (text, vector) in texts.iter().zip(vectors).rev() {
            self.cache().put(text, Arc::from(vector), (self.now)());
        }
        if let Some(mut frequent) = self.counted() {
            for (query, count) in queries {
                frequent.add(query, *count);
            }
        }
        Ok(queries.len())
    }

    /// The tokens of texts; where that panics, it is told of by the thread that cuts them again.
    fn cut_ahead(&self, texts: &[&str]) -> Option<Vec<Vec<u32>>> {
        guarded(|| self.embedder.cut(texts)).ok().flatten()
    }

    fn counted(&self) -> Option<MutexGuard<'_, Frequent>> {
        self.frequent.as_ref().map(|frequent| frequent.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the service did so far.
    pub fn stats(&self) -> ServiceStats {
        ServiceStats {
            texts: self.counts.texts.load(Ordering::Relaxed),
            batches: self.counts.batches.load(Ordering::Relaxed),
            cut_ahead: self.counts.cut_ahead.load(Ordering::Relaxed),
            queries_waiting: self.queues.as_ref().map_or(0, |queues| queues.queries.len()),
            bulk_waiting: self.queues.as_ref().map_or(0, |queues| queues.bulk.len()),
            cache: self.cache().stats(),
        }
    }

    fn cache(&self) -> MutexGuard<'_, QueryCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Embedder for EmbeddingService {
    fn identity(&self) -> &ModelIdentity {
        self.embedder.identity()
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let Some(queues) = &self.queues else { return Err(EmbedError::Stopped) };
        let mut order: Vec<usize> = (0..texts.len()).collect();
        if self.length_sorted {
            // Length in bytes stands for length in tokens: like goes with like.
            order.sort_by_key(|index| texts[*index].len());
        }
        let jobs = order.len().div_ceil(self.batch_size);
        // Room for every answer: a thread never waits for a caller.
        let (answer, answers) = bounded(jobs.max(1));
        let mut vectors = vec![Vec::new(); texts.len()];
        let mut take = |answers: &Receiver<Answer>| -> Result<(), EmbedError> {
            for (place, vector) in answers.recv().map_err(|_| EmbedError::Stopped)?? {
                vectors[place] = vector;
            }
            Ok(())
        };
        let ahead_max = self.bulk_threads.saturating_add(self.batches_ahead);
        let mut taken = 0;
        for (sent, places) in order.chunks(self.batch_size).enumerate() {
            let texts: Vec<&str> = places.iter().map(|index| texts[*index]).collect();
            // The first find threads that wait for them.
            let ahead = self.batches_ahead > 0 && sent >= self.bulk_threads;
            while ahead && sent - taken >= ahead_max {
                take(&answers)?;
                taken += 1;
            }
            let tokens = ahead.then(|| self.cut_ahead(&texts)).flatten();
            let texts = texts.into_iter().map(str::to_owned).collect();
            let job = Job { texts, tokens, places: places.to_vec(), answer: answer.clone() };
            queues.bulk.send(job).map_err(|_| EmbedError::Stopped)?;
        }
        drop(answer);
        for _ in taken..jobs {
            take(&answers)?;
        }
        Ok(vectors)
    }

    fn chunk(&self, text: &str) -> Vec<Range<usize>> {
        self.embedder.chunk(text)
    }

    fn count_tokens(&self, text: &str) -> usize {
        self.embedder.count_tokens(text)
    }

    fn instructions(&self) -> &'static str {
        self.embedder.instructions()
    }
}

impl Drop for EmbeddingService {
    fn drop(&mut self) {
        self.queues = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has told its callers by dropping their answers.
            drop(thread.join());
        }
    }
}

struct Worker {
    embedder: Arc<dyn Embedder>,
    queues: Queues<Receiver<Job>>,
    batch_size: usize,
    counts: Arc<Counts>,
}

impl Worker {
    fn serve_queries(&self) {
        while let Ok(job) = self.idle(|| self.queues.queries.recv()) {
            self.run_queries(job);
        }
    }

    fn serve_all(&self) {
        let Queues { queries, bulk } = &self.queues;
        loop {
            if let Ok(job) = queries.try_recv() {
                self.run_queries(job);
                continue;
            }
            let (is_query, job) = self.idle(|| {
                select! {
                    recv(queries) -> job => (true, job),
                    recv(bulk) -> job => (false, job),
                }
            });
            match (is_query, job) {
                (true, Ok(job)) => self.run_queries(job),
                (false, Ok(job)) => self.run_bulk(job),
                // The service is being dropped: what is left is in the other queue.
                (true, Err(_)) => match bulk.recv() {
                    Ok(job) => self.run_bulk(job),
                    Err(_) => return,
                },
                (false, Err(_)) => match queries.recv() {
                    Ok(job) => self.run_queries(job),
                    Err(_) => return,
                },
            }
        }
    }

    /// Waits, and counts as idle meanwhile.
    fn idle<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.counts.idle.fetch_add(1, Ordering::Relaxed);
        let came = wait();
        self.counts.idle.fetch_sub(1, Ordering::Relaxed);
        came
    }

    /// Runs `first` together with its share of the queries that wait: threads that have nothing to do are about to take theirs.
    fn run_queries(&self, first: Job) {
        let queries = &self.queues.queries;
        let share = (queries.len() + 1).div_ceil(self.counts.idle.load(Ordering::Relaxed) + 1);
        self.run_with_waiting(first, queries, share.min(self.batch_size));
    }

    fn run_bulk(&self, first: Job) {
        self.run_with_waiting(first, &self.queues.bulk, self.batch_size);
    }

    /// Runs `first` together with what waits in `queue`, up to so many texts.
    fn run_with_waiting(&self, first: Job, queue: &Receiver<Job>, texts_max: usize) {
        let mut texts = first.texts.len();
        let mut jobs = vec![first];
        while texts < texts_max
            && let Ok(job) = queue.try_recv()
        {
            texts += job.texts.len();
            jobs.push(job);
        }
        self.run(jobs);
    }

    fn run(&self, mut jobs: Vec<Job>) {
        let vectors = guarded(|| self.vectors(&mut jobs));
        let texts: usize = jobs.iter().map(|job| job.texts.len()).sum();
        let vectors = vectors.unwrap_or_else(|what| Err(EmbedError::Panicked { texts, what }));
        match vectors {
            Ok(vectors) => {
                let mut vectors = vectors.into_iter();
                for job in jobs {
                    let answer = job.places.iter().copied().zip(&mut vectors).collect();
                    // A caller that no longer waits has no use for it.
                    drop(job.answer.send(Ok(answer)));
                }
            }
            // One caller's text must not fail the others, and the place in the error must be the caller's own.
            Err(_) if jobs.len() > 1 => jobs.into_iter().for_each(|job| self.run(vec![job])),
            Err(error) => {
                if let Some(job) = jobs.into_iter().next() {
                    drop(job.answer.send(Err(error.at(&job.places))));
                }
            }
        }
    }

    /// The vectors of all texts of `jobs`.
    fn vectors(&self, jobs: &mut [Job]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let tokens = self.tokens(jobs);
        let texts: Vec<&str> = jobs.iter().flat_map(|job| &job.texts).map(String::as_str).collect();
        self.counts.batches.fetch_add(1, Ordering::Relaxed);
        self.counts.texts.fetch_add(texts.len() as u64, Ordering::Relaxed);
        match tokens {
            Some(tokens) => self.embedder.embed_cut(&texts, tokens),
            None => self.embedder.embed(&texts),
        }
    }

    /// The tokens of all texts of `jobs`, where some were cut ahead.
    fn tokens(&self, jobs: &mut [Job]) -> Option<Vec<Vec<u32>>> {
        if jobs.iter().all(|job| job.tokens.is_none()) {
            return None;
        }
        let mut all = Vec::new();
        for job in jobs {
            if let Some(tokens) = job.tokens.take() {
                self.counts.cut_ahead.fetch_add(tokens.len() as u64, Ordering::Relaxed);
                all.extend(tokens);
            } else {
                let texts: Vec<&str> = job.texts.iter().map(String::as_str).collect();
                all.extend(self.embedder.cut(&texts)?);
            }
        }
        Some(all)
    }
}

#[cfg(test)]
mod tests;
