//! A place to execute a workflow's lines in: a repository of two commits, the scripts as they are, and stand-ins for what
//! would take hours or needs the network.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// What the event that started the workflow says, and how fast the two commits are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Given {
    /// Nanoseconds that an operation takes in the base and in the change.
    pub(super) base: u64,
    pub(super) head: u64,
    /// The commit before a push; otherwise it is a pull request.
    pub(super) before: Option<&'static str>,
    /// The base is from before there were scripts for this.
    pub(super) base_is_old: bool,
    /// Benches that the base does not have, and that the change does not have.
    pub(super) base_lacks: &'static [&'static str],
    pub(super) head_lacks: &'static [&'static str],
}

impl Given {
    /// A value of the workflow with its expressions replaced by what they come to.
    pub(super) fn resolved(self, text: &str) -> String {
        let Some(expression) = text.strip_prefix("${{").and_then(|text| text.strip_suffix("}}")) else {
            assert!(!text.contains("${{"), "an expression within a text: {text}");
            return text.to_owned();
        };
        match expression.trim() {
            "github.event_name == 'pull_request' && 'HEAD^1' || inputs.base || github.event.before" => {
                self.before.unwrap_or("HEAD^1")
            }
            "github.token" => "token",
            "github.repository" => "owner/name",
            "github.event.pull_request.number" => "7",
            other => panic!("say here what {other} is"),
        }
        .to_owned()
    }
}

/// Builds nothing: benches are scripts that say they took as long as the file `speed` of their tree says.
const CARGO: &str = r#"#!/bin/bash
set -eu
if [ "$1" = metadata ]; then
    [ "$2" = --no-deps ]
    printf '{"packages":[{"targets":[{"kind":["lib"],"crate_types":["lib"],"name":"search","src_path":"x"}'
    for bench in $(cat benches); do
        printf ',{"kind":["bench"],"crate_types":["bin"],"name":"%s","src_path":"x","test":false}' "$bench"
    done
    echo ']}]}'
    exit
fi
echo "$*" >>"$CALLS/cargo"
put() { # file, text
    mkdir -p "$(dirname "$1")"
    printf '#!/bin/bash\n%s\n' "$2" >"$1"
    chmod +x "$1"
}
built() { # name, kind
    printf '{"reason":"compiler-artifact","package_id":"x","target":{"kind":["%s"],"crate_types":["bin"],"name":"%s","src_path":"x"},"profile":{"opt_level":"3"},"filenames":["%s"],"executable":"%s","fresh":false}\n' \
        "$2" "$1" "$target/$1" "$target/$1"
}
target="${CARGO_TARGET_DIR:-$PWD/target}/stand-in"
case "$*" in
"test "*--no-run) put target/debug/caxton 'echo "$*" >>"$CALLS/caxton"' ;;
"bench "*--no-run*)
    [[ "$*" == *"--message-format json-render-diagnostics"* ]]
    echo '{"reason":"compiler-artifact","target":{"kind":["lib"],"crate_types":["lib"],"name":"serde","src_path":"x"},"filenames":["y"],"executable":null,"fresh":true}'
    while [ $# -gt 0 ]; do
        if [ "$1" = --bench ]; then
            put "$target/$2" "bench=$2 nanos=$(cat speed)"'
[ "$1 $2" = "--bench --save-baseline" ]
echo "$3" >>"$CALLS/$bench"
folder="$CRITERION_HOME/$bench/work/$3"
mkdir -p "$folder"
echo "{\"full_id\":\"$bench/work\"}" >"$folder/benchmark.json"
echo "{\"iters\":[1.0,1.0,1.0,1.0,1.0,1.0],\"times\":[$nanos.0,$nanos.5,$nanos.1,$nanos.3,$nanos.2,$nanos.4]}" >"$folder/sample.json"'
            built "$2" bench
            shift
        fi
        shift
    done
    put "$target/caxton" 'exec "$CAXTON" "$@"'
    built caxton bin
    echo '{"reason":"build-finished","success":true}'
    ;;
esac
"#;

const GH: &str = r#"#!/bin/bash
echo "$*" >>"$CALLS/gh"
[ -n "$GH_TOKEN" ]
if [ "$2" = --paginate ]; then cat known; fi
"#;

/// Something that is there and content.
const CONTENT: &str = r#"#!/bin/bash
echo "$*" >>"$CALLS/$(basename "$0")"
"#;

/// The names of all benches but these, a line each.
fn benches(lacking: &[&str]) -> String {
    let all = ["agents", "throughput", "latency", "scalability", "search", "recovery"];
    all.into_iter().filter(|bench| !lacking.contains(bench)).collect::<Vec<_>>().join("\n")
}

pub(super) struct Sandbox(TempDir);

impl Sandbox {
    pub(super) fn new(given: Given) -> Self {
        let sandbox = Self(TempDir::new().unwrap());
        for (name, text) in [
            ("cargo", CARGO),
            ("gh", GH),
            ("rustup", CONTENT),
            ("actionlint", CONTENT),
            ("npm", CONTENT),
            ("python3", "#!/bin/sh\nexit 1\n"),
        ] {
            sandbox.write(&format!("outside/bin/{name}"), text);
            let file = sandbox.path().join("outside/bin").join(name);
            fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::create_dir_all(sandbox.path().join("outside/calls")).unwrap();
        sandbox.git(&["init", "--quiet", "--initial-branch", "main"]);
        sandbox.write(".gitignore", "/target\n/outside\n");
        sandbox.write("speed", &given.base.to_string());
        sandbox.write("benches", &benches(given.base_lacks));
        if !given.base_is_old {
            sandbox.copy_scripts();
        }
        sandbox.commit("base");
        sandbox.copy_scripts();
        sandbox.write("speed", &given.head.to_string());
        sandbox.write("benches", &benches(given.head_lacks));
        sandbox.commit("head");
        sandbox
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn copy_scripts(&self) {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci");
        fs::create_dir_all(self.path().join(".ci")).unwrap();
        for script in fs::read_dir(scripts).unwrap() {
            let script = script.unwrap();
            fs::copy(script.path(), self.path().join(".ci").join(script.file_name())).unwrap();
        }
    }

    fn git(&self, args: &[&str]) {
        let output = self.command("git").args(args).output().unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn commit(&self, message: &str) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]);
    }

    /// A program that knows nothing of the machine's settings.
    fn command(&self, program: &str) -> Command {
        let outside = self.path().join("outside");
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new(program);
        command
            .current_dir(self.path())
            .env_clear()
            .env("PATH", format!("{}:{path}", outside.join("bin").display()))
            .env("HOME", &outside)
            .env("CALLS", outside.join("calls"))
            .env("CAXTON", env!("CARGO_BIN_EXE_caxton"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GITHUB_STEP_SUMMARY", self.path().join("summary.md"))
            .stdin(Stdio::null());
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "somebody").env(format!("GIT_{who}_EMAIL"), "some@body");
        }
        command
    }

    /// Executes a script as a runner does with `shell: bash`.
    pub(super) fn bash(&self, script: &str, env: &[(String, String)]) -> Output {
        self.write("outside/script.sh", script);
        let mut command = self.command("bash");
        command.args(["--noprofile", "--norc", "-eo", "pipefail", "outside/script.sh"]);
        command.envs(env.iter().map(|(name, value)| (name, value))).output().unwrap()
    }

    pub(super) fn write(&self, file: &str, text: &str) {
        let path = self.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(super) fn remove(&self, file: &str) {
        fs::remove_file(self.path().join(file)).unwrap();
    }

    #[track_caller]
    pub(super) fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path().join(file)).unwrap()
    }

    pub(super) fn exists(&self, file: &str) -> bool {
        self.path().join(file).exists()
    }

    /// What a stand-in was called with, a line a call.
    pub(super) fn calls(&self, program: &str) -> Vec<String> {
        let calls = fs::read_to_string(self.path().join("outside/calls").join(program)).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }
}
