//! `CAXTON_*` variables: which key each one names.

use std::ffi::OsString;

use super::table::all_keys;

/// What the name of every variable begins with.
const PREFIX: &str = "CAXTON_";

/// Variables that the command line reads itself.
const OF_THE_COMMAND_LINE: &[&str] =
    &["CONFIG", "PRESET", "DATA_DIR", "MODEL_DIR", "URL", "API_KEY", "AGENT", "WORKSPACE", "NO_PROGRESS"];

/// The `CAXTON_*` variables of this process, in order of their names.
pub fn environment() -> Vec<(String, OsString)> {
    // A name that is no text is that of no key.
    let all = std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value));
    let mut ours: Vec<_> = all.filter(|(name, _)| name.starts_with(PREFIX)).collect();
    ours.sort_unstable();
    ours
}

/// What a variable is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Variable {
    /// A key, by its name as written in a file.
    Key(&'static str),
    /// Not the configuration's.
    Foreign,
    /// No key; the name of the closest variable.
    Unknown(Option<String>),
}

/// The variable for a key: `CAXTON_MEMORY__SQLITE_CONFIG__CACHE_SIZE_MB`.
pub(crate) fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

/// What the variable `name` is for. One underscore may stand where a dot was, as two may: `CAXTON_SERVER_PORT` and
/// `CAXTON_SERVER__PORT` are the same. No two keys collide (a test checks).
pub(crate) fn variable(name: &str) -> Variable {
    let Some(rest) = name.strip_prefix(PREFIX) else { return Variable::Foreign };
    // Kubernetes sets CAXTON_PORT, CAXTON_PORT_8080_TCP_ADDR, CAXTON_SERVICE_HOST … in every pod beside a service
    // that is called caxton.
    let of_kubernetes = rest == "PORT" || rest.starts_with("PORT_") || rest.starts_with("SERVICE_");
    if of_kubernetes || OF_THE_COMMAND_LINE.contains(&rest) {
        return Variable::Foreign;
    }
    let wanted = flat(rest);
    if let Some(key) = all_keys().find(|key| flat(key) == wanted) {
        return Variable::Key(key);
    }
    let alike = |key: &&str| strsim::normalized_damerau_levenshtein(&flat(key), &wanted);
    let best = all_keys().max_by(|a, b| alike(a).total_cmp(&alike(b)));
    Variable::Unknown(best.filter(|best| alike(best) > 0.6).map(variable_of))
}

fn flat(name: &str) -> String {
    name.to_uppercase().replace('.', "_").replace("__", "_")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::ffi::OsStringExt as _;

    use super::super::{Sources, load};
    use super::*;

    #[test]
    fn no_two_keys_share_a_variable() {
        let mut seen = BTreeMap::new();
        for key in all_keys() {
            let before = seen.insert(flat(key), key);
            assert_eq!(before, None, "{key}");
            assert_eq!(variable(&variable_of(key)), Variable::Key(key));
        }
    }

    #[test]
    fn one_underscore_is_as_good_as_two() {
        for name in ["CAXTON_SERVER_PORT", "CAXTON_SERVER__PORT"] {
            assert_eq!(variable(name), Variable::Key("server.port"), "{name}");
        }
        let cache = Variable::Key("memory.sqlite_config.cache_size_mb");
        assert_eq!(variable("CAXTON_MEMORY__SQLITE_CONFIG__CACHE_SIZE_MB"), cache);
        assert_eq!(variable("CAXTON_MEMORY_SQLITE_CONFIG_CACHE_SIZE_MB"), cache);
    }

    #[test]
    fn a_typo_is_told_from_what_belongs_to_others() {
        for name in
            ["CAXTON_CONFIG", "CAXTON_PORT", "CAXTON_PORT_8080_TCP_PROTO", "CAXTON_SERVICE_PORT", "PATH"]
        {
            assert_eq!(variable(name), Variable::Foreign, "{name}");
        }
        let typo = variable("CAXTON_SERVER_PROT");
        assert_eq!(typo, Variable::Unknown(Some("CAXTON_SERVER__PORT".to_owned())));
        assert_eq!(variable("CAXTON_XYZZY"), Variable::Unknown(None));
    }

    #[test]
    fn a_value_that_is_no_text_is_refused_and_not_taken_for_another() {
        let value = OsString::from_vec(b"/srv/d\xff".to_vec());
        let loaded = |name: &str| {
            let environment = vec![(name.to_owned(), value.clone())];
            load(&Sources { environment, ..Sources::default() }).map_err(|error| error.to_string())
        };
        let told = loaded("CAXTON_SERVER__DATA_DIR").map(|loaded| loaded.config.server.data_dir).unwrap_err();
        let then =
            "the variable CAXTON_SERVER__DATA_DIR: server.data_dir: the value is not UTF-8, as it must be; ";
        assert!(told.starts_with(then), "{told}");
        // The command line reads that one itself.
        assert!(loaded("CAXTON_DATA_DIR").is_ok());
    }
}
