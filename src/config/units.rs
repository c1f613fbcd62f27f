//! Converts Docker's notations to those of Kubernetes. Each function takes text and returns a value, or a message that says what is
//! required.

/// An amount of memory as a quantity: `512m` is `512Mi`, `4g` is `4Gi`, a number counts bytes. `None`: no limit. A quantity with a
/// binary unit, such as `4Gi`, is accepted too.
///
/// # Errors
/// A message that says what is required.
pub fn memory(text: &str) -> Result<Option<String>, &'static str> {
    const WANTED: &str = "this must be an amount of memory, such as 512m or 4g";
    let text = text.trim().to_ascii_lowercase();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let shift = match unit.trim_start() {
        "" | "b" => 0,
        "k" | "kb" | "ki" | "kib" => 10,
        "m" | "mb" | "mi" | "mib" => 20,
        "g" | "gb" | "gi" | "gib" => 30,
        "t" | "tb" | "ti" | "tib" => 40,
        "p" | "pb" | "pi" | "pib" => 50,
        "e" | "eb" | "ei" | "eib" => 60,
        _ => return Err(WANTED),
    };
    let bytes = decimal(number, 1_u128 << shift).ok_or(WANTED)?;
    if bytes > i64::MAX as u128 {
        return Err("this is too much memory");
    }
    if bytes == 0 {
        return if is_zero(number) { Ok(None) } else { Err("this is less than a byte") };
    }
    let units = [(60, "Ei"), (50, "Pi"), (40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")];
    let found = units.into_iter().find(|(shift, _)| bytes.is_multiple_of(1 << shift));
    Ok(Some(found.map_or_else(|| bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))))
}

/// A quantity of memory in Docker's notation. Docker reads `4G` as what Kubernetes calls `4Gi`; so decimal units are converted to
/// bytes.
pub fn memory_of_quantity(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let power = match unit {
        "" => 0,
        "k" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        "P" => 5,
        "E" => 6,
        // Only binary units are left: an exponent or thousandths are not used for memory.
        _ => return memory(text).ok().flatten().filter(|_| unit.ends_with('i')),
    };
    Some(decimal(number, 1_000_u128.pow(power))?.to_string())
}

/// A number of CPUs as a quantity: `2`, `0.5` is `500m`. `None`: no limit.
///
/// # Errors
/// A message that says what is required.
pub fn cpus(text: &str) -> Result<Option<String>, &'static str> {
    const WANTED: &str = "this must be a number of CPUs, such as 2 or 0.5";
    let text = text.trim();
    let (number, unit) = text.strip_suffix('m').map_or((text, 1_000), |number| (number, 1));
    let thousandths = decimal(number, unit).ok_or(WANTED)?;
    match thousandths {
        0 if is_zero(number) => Ok(None),
        0 => Err("this is less than a thousandth of a CPU"),
        1..=1_000_000_000 if thousandths.is_multiple_of(1_000) => Ok(Some((thousandths / 1_000).to_string())),
        1..=1_000_000_000 => Ok(Some(format!("{thousandths}m"))),
        _ => Err("these are too many CPUs"), // a u128
    }
}

fn is_zero(number: &str) -> bool {
    number.chars().all(|c| c == '0' || c == '.')
}

/// A decimal number, in units of which a whole has `unit`. Fractions of a unit are dropped.
fn decimal(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !are_digits(whole) || !are_digits(fraction) {
        return None;
    }
    // More digits than this make no difference: a pebibyte has fewer bytes.
    let fraction = &fraction[..fraction.len().min(18)];
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    whole.checked_mul(unit)?.checked_add(part.checked_mul(unit)? / scale)
}

/// A port of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its number.
    pub number: i32,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: &'static str,
}

/// A port as it is written in a key: `8081/tcp`, `53/udp`, `8081`.
///
/// # Errors
/// A message that says what is required.
pub fn port(text: &str) -> Result<Port, &'static str> {
    let (number, protocol) = text.trim().split_once('/').unwrap_or((text.trim(), "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => "TCP",
        "udp" => "UDP",
        "sctp" => "SCTP",
        _ => return Err("the protocol of a port must be tcp, udp or sctp"),
    };
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    match number.parse() {
        Ok(number @ 1..=65535) if is_number => Ok(Port { number, protocol }),
        _ => Err("a port must be one number from 1 to 65535, such as 8081/tcp"), // an error, or another number
    }
}

/// A volume in Docker's notation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount<'a> {
    /// A folder of the host, or a name.
    pub source: &'a str,
    /// The folder in the container.
    pub target: &'a str,
    /// Whether the volume is read-only.
    pub is_read_only: bool,
}

impl Mount<'_> {
    /// Whether the source is a folder of a host.
    pub fn is_of_host(&self) -> bool {
        self.source.starts_with(['/', '.', '~']) || self.source.contains('/')
    }

    /// Whether the source can be the name of a claim.
    pub fn is_claim(&self) -> bool {
        let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        let source = self.source;
        source.len() <= 253
            && is_end(source.chars().next())
            && is_end(source.chars().next_back())
            && source.chars().all(is_inner)
    }
}

/// Parses a volume of the form `source:target[:ro|rw]`.
///
/// # Errors
/// A message that says what is required.
pub fn mount(text: &str) -> Result<Mount<'_>, &'static str> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts[..] {
        [source, target] => (source, target, "rw"),
        [source, target, mode] => (source, target, mode),
        _ => return Err("a volume must be source:target, source:target:ro or source:target:rw"), // any other number
    };
    if source.is_empty() || !target.starts_with('/') {
        return Err("a volume must have a source, and a target that begins with `/`");
    }
    let mut is_read_only = false;
    for flag in mode.split(',') {
        match flag {
            "ro" => is_read_only = true,
            // SELinux labels and mount propagation only matter on a host.
            "rw" | "z" | "Z" | "shared" | "slave" | "private" | "rshared" | "rslave" | "rprivate" | "nocopy" => {}
            _ => return Err("the mode of a volume must be ro or rw"), // any other text
        }
    }
    Ok(Mount { source, target, is_read_only })
}

/// A user as `user[:group]`, in numbers. Of all names, only that of root is known without the image. `None`: another name.
pub fn user(text: &str) -> Option<(i64, Option<i64>)> {
    let id = |text: &str| match text {
        "root" => Some(0),
        number => number.parse::<u32>().ok().filter(|id| *id <= i32::MAX.cast_unsigned()).map(i64::from),
    };
    match text.trim().split_once(':') {
        None => Some((id(text.trim())?, None)),
        Some((user, group)) => Some((id(user)?, Some(id(group)?))),
    }
}

/// A capability in Kubernetes' notation: `SYS_PTRACE`.
pub fn capability(text: &str) -> String {
    let name = text.trim().to_ascii_uppercase();
    name.strip_prefix("CAP_").map_or_else(|| name.clone(), String::from)
}

/// One of Docker's security options, by its equivalent in Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecurityOption<'a> {
    /// `seccomp=unconfined`.
    SeccompUnconfined,
    /// `apparmor=unconfined`.
    AppArmorUnconfined,
    /// `apparmor=<profile>`.
    AppArmor(&'a str),
    /// `no-new-privileges`.
    NoNewPrivileges(bool),
    /// `label=type:<type>`.
    SeLinuxType(&'a str),
    /// `label=level:<level>`.
    SeLinuxLevel(&'a str),
    /// An option that only makes sense on a host, or that a sandbox has anyway.
    Other,
}

/// Parses a security option; its parts are joined by `=` or `:`.
pub fn security_option(text: &str) -> SecurityOption<'_> {
    let text = text.trim();
    let (name, value) = text.split_once(['=', ':']).unwrap_or((text, ""));
    match (name, value) {
        ("seccomp", "unconfined") => SecurityOption::SeccompUnconfined,
        ("apparmor", "unconfined") => SecurityOption::AppArmorUnconfined,
        ("apparmor", profile) if !profile.is_empty() => SecurityOption::AppArmor(profile),
        ("no-new-privileges", "" | "true") => SecurityOption::NoNewPrivileges(true),
        ("no-new-privileges", "false") => SecurityOption::NoNewPrivileges(false),
        ("label", label) => match label.split_once(':') {
            Some(("type", word)) if !word.is_empty() => SecurityOption::SeLinuxType(word),
            Some(("level", word)) if !word.is_empty() => SecurityOption::SeLinuxLevel(word),
            _ => SecurityOption::Other, // other labels
        },
        _ => SecurityOption::Other, // other options
    }
}

/// A text that Kubernetes leaves as it is. In commands and variables Kubernetes replaces `$(NAME)` by the value of a variable and
/// `$$` by `$`, which would break a shell's `$$` (its process ID).
pub fn literal(text: &str) -> String {
    if text.contains("$(") || text.contains("$$") { text.replace('$', "$$") } else { text.to_string() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn memory_is_said_in_binary_units() {
        for (text, quantity) in [
            ("512m", "512Mi"),
            ("4g", "4Gi"),
            ("4G", "4Gi"),
            ("1.5g", "1536Mi"),
            ("16gb", "16Gi"),
            ("4Gi", "4Gi"),
            ("512MiB", "512Mi"),
            ("1024k", "1Mi"),
            ("100b", "100"),
            ("1000", "1000"),
            ("1048576", "1Mi"),
            ("2t", "2Ti"),
            ("0.5k", "512"),
            (" 64m ", "64Mi"),
            ("64 m", "64Mi"),
        ] {
            assert_eq!(memory(text), Ok(Some(quantity.into())), "{text}");
        }
        assert_eq!(memory("0"), Ok(None));
        assert_eq!(memory("0.0g"), Ok(None));
        for wrong in [
            "",
            "m",
            "-1g",
            "4x",
            "1e3",
            "1.2.3g",
            "٤g",
            "9999999999g",
            ".",
            "0.1b",
            "99999999999999999999999999999999999999999",
        ] {
            assert!(memory(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn memory_goes_back_as_what_it_is() {
        for (quantity, text) in [("4Gi", "4Gi"), ("4G", "4000000000"), ("1.5k", "1500"), ("100", "100")] {
            assert_eq!(memory_of_quantity(quantity).as_deref(), Some(text));
        }
        for odd in ["100m", "1e3", "x", "1g"] {
            assert_eq!(memory_of_quantity(odd), None, "{odd}");
        }
    }

    #[test]
    fn cpus_are_said_in_thousandths() {
        for (text, quantity) in
            [("2", "2"), ("2.0", "2"), ("0.5", "500m"), ("1.25", "1250m"), ("500m", "500m"), ("0.0019", "1m")]
        {
            assert_eq!(cpus(text), Ok(Some(quantity.into())), "{text}");
        }
        assert_eq!(cpus("0"), Ok(None));
        for wrong in ["", "-1", "all", "nan", "1e9", "0.0001", "99999999"] {
            assert!(cpus(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_port_keeps_its_protocol() {
        assert_eq!(port("8081/tcp"), Ok(Port { number: 8081, protocol: "TCP" }));
        assert_eq!(port("53/UDP"), Ok(Port { number: 53, protocol: "UDP" }));
        assert_eq!(port("7687"), Ok(Port { number: 7687, protocol: "TCP" }));
        for wrong in ["", "0", "65536", "-1", "+80", "http", "80-90", "80/icmp", "80/", "1.2.3.4:80", "80/tcp/udp"] {
            assert!(port(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_volume_is_two_or_three_parts() {
        let read = |text| mount(text).map(|mount| (mount.is_of_host(), mount.is_claim(), mount.is_read_only));
        assert_eq!(read("/data:/data"), Ok((true, false, false)));
        assert_eq!(read("./data:/data:ro"), Ok((true, false, true)));
        assert_eq!(read("corpus:/corpus:ro,z"), Ok((false, true, true)));
        assert_eq!(read("a_sandbox_scripts:/sandbox_scripts:rw"), Ok((false, false, false)));
        for wrong in ["", "a", "a:b", ":/b", "a:/b:rx", "a:/b:ro:x"] {
            assert!(mount(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn users_are_numbers() {
        assert_eq!(user("1000"), Some((1000, None)));
        assert_eq!(user("1000:100"), Some((1000, Some(100))));
        assert_eq!(user("root:0"), Some((0, Some(0))));
        for name in ["ubuntu", "1000:users", "-1", "", "4294967295"] {
            assert_eq!(user(name), None, "{name}");
        }
    }

    #[test]
    fn security_options_are_those_of_a_container() {
        assert_eq!(capability("cap_sys_ptrace"), "SYS_PTRACE");
        assert_eq!(security_option("seccomp=unconfined"), SecurityOption::SeccompUnconfined);
        assert_eq!(security_option("seccomp:unconfined"), SecurityOption::SeccompUnconfined);
        assert_eq!(security_option("apparmor=docker-default"), SecurityOption::AppArmor("docker-default"));
        assert_eq!(security_option("no-new-privileges"), SecurityOption::NoNewPrivileges(true));
        assert_eq!(security_option("label=type:spc_t"), SecurityOption::SeLinuxType("spc_t"));
        for other in ["label=disable", "seccomp=/etc/profile.json", "", "systempaths=unconfined"] {
            assert_eq!(security_option(other), SecurityOption::Other, "{other}");
        }
    }

    /// What the kubelet makes of a text if no variable is defined.
    fn kubelet(text: &str) -> String {
        let (mut out, mut rest) = (String::new(), text);
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            if let Some(after) = after.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if after.starts_with('(') && after.contains(')') {
                out.push_str("VALUE");
                rest = &after[after.find(')').unwrap() + 1..];
            } else {
                out.push('$');
                rest = after;
            }
        }
        out + rest
    }

    proptest! {
        #[test]
        fn the_kubelet_leaves_a_literal_as_it_was(text in "[$()a-c]{0,16}") {
            prop_assert_eq!(kubelet(&literal(&text)), text);
        }

        #[test]
        fn whatever_stands_there_is_survived(text in any::<String>(), close in "[0-9.]{0,40}[a-zA-Z:/]{0,4}") {
            for text in [text, close] {
                let _ = (memory(&text), cpus(&text), port(&text), mount(&text), user(&text), security_option(&text));
            }
        }

        #[test]
        fn memory_is_never_changed_by_more_than_a_byte(bytes in 1..i64::MAX) {
            let quantity = memory(&bytes.to_string()).unwrap().unwrap();
            prop_assert_eq!(memory(&quantity), Ok(Some(quantity.clone())));
        }
    }
}
