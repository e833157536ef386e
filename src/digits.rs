//! Numbers as text, without the formatting machinery: it would cost a third of
//! a request's whole head, or of a line of the access log.

/// Appends a decimal number.
pub(crate) fn decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut from = digits.len();
    loop {
        from -= 1;
        digits[from] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[from..]);
}

/// Fills `out` with the last hexadecimal digits of a number.
pub(crate) fn hexadecimal(out: &mut [u8], mut number: u128) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for place in out.iter_mut().rev() {
        *place = DIGITS[(number & 15) as usize];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_they_are_read() {
        for number in [0, 7, 10, 65_535, u64::MAX] {
            let mut out = Vec::new();
            decimal(&mut out, number);
            assert_eq!(out, number.to_string().into_bytes());
            let mut out = [0; 16];
            hexadecimal(&mut out, u128::from(number));
            assert_eq!(out.as_slice(), format!("{number:016x}").as_bytes());
        }
    }
}
