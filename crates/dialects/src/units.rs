//! Numbers with units as configuration files write them: `8h`, `10s`, `1.5h`, `64k`.

use std::time::Duration;

/// Longest time that is taken: a hundred years. More is a slip of the pen.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Reads a time: a number, with a fraction where needed, and `ms`, `s`, `m`, `h`, `d`, `w`; seconds where no unit
/// stands.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let millis: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 24 * 3_600_000,
        "w" => 7 * 24 * 3_600_000,
        _ => return Err("a time is a number with s, m, h or d behind it, such as 8h".to_owned()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 3 {
        return Err("a time begins with a number, such as 8h".to_owned());
    }
    let too_long = || "that is longer than a hundred years".to_owned();
    let whole: u64 = whole.parse().map_err(|_| too_long())?;
    let thousandths: u64 = format!("{fraction:0<3}").parse().map_err(|_| too_long())?;
    let time = whole.checked_mul(millis).map(|all| Duration::from_millis(all + thousandths * millis / 1_000));
    time.filter(|time| *time <= LONGEST).ok_or_else(too_long)
}

/// Writes a time with the largest unit that keeps it whole.
pub(crate) fn write_duration(time: Duration) -> String {
    let (seconds, millis) = (time.as_secs(), time.subsec_millis());
    if millis != 0 {
        return format!("{}ms", time.as_millis());
    }
    let units = [(24 * 3600, "d"), (3600, "h"), (60, "m")];
    match units.into_iter().find(|(size, _)| seconds > 0 && seconds % size == 0) {
        Some((size, unit)) => format!("{}{unit}", seconds / size),
        None => format!("{seconds}s"),
    }
}

/// Reads a count with `k`, `M`, `G`, `T` (powers of 1024) behind it.
pub(crate) fn count(text: &str) -> Result<u64, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let shift = match unit.to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err("a count is a number with k, M, G or T behind it, such as 512M".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "a count is a number, such as 1000000 or 512M".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "that is too large".to_owned())
}

/// Reads a yes or a no.
pub(crate) fn flag(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "y" | "true" | "on" | "1" => Ok(true),
        "no" | "n" | "false" | "off" | "0" => Ok(false),
        _ => Err("it is yes or no".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_their_units() {
        for (text, seconds) in [("8h", 28_800), ("10", 10), ("10s", 10), ("1.5h", 5_400), ("2d", 172_800), ("0", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for text in ["", "h", "8x", "1.2345s", "-1", "99999999999999999999", "36501d", "1..2s", "８h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_comes_back_as_it_was_written() {
        for text in ["8h", "90m", "10s", "1d", "0s", "1500ms"] {
            assert_eq!(duration(text).map(write_duration).as_deref(), Ok(text));
        }
    }

    #[test]
    fn counts_have_binary_units_and_do_not_overflow() {
        assert_eq!(count("64k"), Ok(65_536));
        assert_eq!(count("2GB"), Ok(2 << 30));
        assert!(count("99999999999T").is_err());
        assert!(count("1x").is_err());
    }
}
