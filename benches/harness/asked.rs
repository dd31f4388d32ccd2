//! Who is asked by a command line: criterion, or a program of the bench's own.

/// Whether a program of the bench's own is asked for: one of these flags, or with `numbers` a plain number. A number right behind
/// another flag, as in `--sample-size 50`, is the value of that; `--bench`, which cargo adds, has none.
pub(crate) fn for_own(arguments: impl Iterator<Item = String>, flags: &[&str], numbers: bool) -> bool {
    let mut is_value = false;
    for argument in arguments {
        let is_number = numbers && !is_value && argument.parse::<u64>().is_ok();
        if is_number || flags.contains(&argument.as_str()) {
            return true;
        }
        is_value = takes_value(&argument);
    }
    false
}

/// Whether a number right behind this is its value.
pub(crate) fn takes_value(argument: &str) -> bool {
    argument.starts_with("--") && argument != "--bench"
}
