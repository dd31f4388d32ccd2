//! Which command lines of a bench are criterion's, and which ask for a program of its own.

#[path = "../../benches/harness/asked.rs"]
mod asked;

#[test]
fn a_number_is_the_value_of_the_flag_before_it() {
    let flags = ["--keep", "--reuse"];
    for (line, numbers, own) in [
        ("", true, false),
        ("--bench", true, false),
        ("10000", true, true),
        ("10000 100000 --bench", true, true),
        ("--bench 10000", true, true),
        ("--sample-size 50 --bench", true, false),
        ("--sample-size 50 --measurement-time 3", true, false),
        ("--sample-size 50 10000", true, true),
        ("--save-baseline main", true, false),
        ("--keep target/x", true, true),
        ("--sample-size 50 --reuse", true, true),
        ("10000", false, false),
        ("--reuse", false, true),
    ] {
        let arguments = line.split_whitespace().map(str::to_owned);
        assert_eq!(asked::for_own(arguments, &flags, numbers), own, "{line:?}");
    }
    assert!(asked::takes_value("--sample-size") && !asked::takes_value("--bench"));
}
