//! What part of the processor's arithmetic a pass makes use of: its operations a second beside those of the bare products,
//! ours and those of `OpenBLAS` and oneDNN, of the same shapes in turn.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Instant;

use caxton_projections::embedding::{MiniLm, ModelOptions};

use crate::peer::Script;
use crate::{BATCH, PAIRS, REST, text_of, time};

const LAYERS: usize = 6;
const HIDDEN: usize = 384;
/// Numbers of a row and columns of the products of a layer.
const PRODUCTS: [(usize, usize); 4] =
    [(HIDDEN, 3 * HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 4 * HIDDEN), (4 * HIDDEN, HIDDEN)];

/// A pass over some texts of one length.
struct Shape {
    name: String,
    count: usize,
    tokens: usize,
}

impl Shape {
    fn rows(&self) -> usize {
        self.count * self.tokens
    }

    /// Operations of the products, in billions.
    fn products(&self) -> f64 {
        let numbers: usize = PRODUCTS.iter().map(|(depth, columns)| depth * columns).sum();
        (2 * self.rows() * numbers * LAYERS) as f64 / 1e9
    }

    /// The same with those of the attention: each token with each of its text, scores and sums.
    fn operations(&self) -> f64 {
        self.products() + (4 * self.rows() * self.tokens * HIDDEN * LAYERS) as f64 / 1e9
    }
}

/// Billions of operations a second: of whole passes first, then of the bare products of each.
struct Speeds {
    pass: f64,
    bare: Vec<f64>,
}

pub(crate) fn measure(dir: &Path, python: Option<&Path>) {
    let model = MiniLm::load(dir, &ModelOptions::default()).unwrap();
    let torch = std::env::var_os("TORCH_PYTHON");
    let peers = [("openblas", python), ("onednn", torch.as_deref().map(Path::new))];
    let mut peers: Vec<Script> = peers
        .into_iter()
        .filter_map(|(library, python)| {
            Some(Script::start(python?, "sgemm_peer.py", &[OsStr::new(library), OsStr::new("1")]))
        })
        .collect();
    let mut shapes = Vec::new();
    for (count, texts) in [(BATCH, "a batch of 32 texts"), (1, "one text")] {
        shapes.extend([12, 60, 256].map(|tokens| Shape {
            name: format!("{texts} of {tokens} tokens"),
            count,
            tokens,
        }));
    }
    let speeds: Vec<Speeds> = shapes.iter().map(|shape| speeds(&model, &mut peers, shape)).collect();
    let names: Vec<&str> =
        std::iter::once("ours").chain(peers.iter().map(|peer| peer.version.as_str())).collect();
    let peak = speeds.iter().flat_map(|speeds| &speeds.bare).copied().fold(0.0, f64::max);
    println!("the fastest bare product on one thread: {peak:.0} billion operations a second");
    for (shape, speeds) in shapes.iter().zip(&speeds) {
        let bare: Vec<String> =
            names.iter().zip(&speeds.bare).map(|(name, speed)| format!("{name} {speed:.0}")).collect();
        println!(
            "{}, billion operations a second: {:.0} with everything, {:.2} of the fastest; products alone {}",
            shape.name,
            speeds.pass,
            speeds.pass / peak,
            bare.join(", "),
        );
    }
}

/// Medians, all measured in turn.
fn speeds(model: &MiniLm, peers: &mut [Script], shape: &Shape) -> Speeds {
    let texts: Vec<String> = (0..shape.count).map(|seed| text_of(model, shape.tokens, seed)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let products: Vec<_> = PRODUCTS.iter().map(|&(depth, columns)| [shape.rows(), depth, columns]).collect();
    let products: Vec<_> = products.iter().cycle().take(PRODUCTS.len() * LAYERS).collect();
    let mut seconds = vec![Vec::new(); 2 + peers.len()];
    let mut check = 0.0;
    for _ in 0..PAIRS {
        std::thread::sleep(REST);
        seconds[0].push(time(model, &texts).as_secs_f64());
        let start = Instant::now();
        check = model.products_alone(shape.rows()).unwrap();
        seconds[1].push(start.elapsed().as_secs_f64());
        for (peer, seconds) in peers.iter_mut().zip(&mut seconds[2..]) {
            std::thread::sleep(REST);
            seconds.push(peer.ask(&products)["seconds"].as_f64().unwrap());
        }
    }
    assert!((check / 1e9 / shape.products() - 1.0).abs() < 1e-9, "{check} operations");
    let medians: Vec<f64> = seconds
        .into_iter()
        .map(|mut seconds| {
            seconds.sort_by(f64::total_cmp);
            seconds[seconds.len() / 2]
        })
        .collect();
    Speeds {
        pass: shape.operations() / medians[0],
        bare: medians[1..].iter().map(|seconds| shape.products() / seconds).collect(),
    }
}
