//! Small pictures of large ones, as in the example `thumbnail`.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

/// The same picture in that width, never enlarged.
pub(crate) fn of(
    image: &[u8],
    format: ImageFormat,
    width: u32,
    max_bytes: u64,
) -> Result<Vec<u8>, ImageError> {
    let image = decode(image, format, max_bytes)?;
    let width = width.min(image.width());
    let mut thumbnail = Cursor::new(Vec::new());
    image
        .thumbnail(width, u32::MAX)
        .write_to(&mut thumbnail, format)?;
    Ok(thumbnail.into_inner())
}

/// Decodes at most `max_bytes` of pixels: a few kilobytes of PNG may claim to be
/// gigabytes.
fn decode(image: &[u8], format: ImageFormat, max_bytes: u64) -> Result<DynamicImage, ImageError> {
    let mut limits = Limits::default();
    limits.max_alloc = Some(max_bytes);
    let mut reader = ImageReader::with_format(Cursor::new(image), format);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder()?;
    limits.reserve(decoder.total_bytes())?;
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image)
}

#[cfg(test)]
pub(crate) mod tests {
    use image::{GenericImageView as _, RgbImage};

    use super::*;

    /// A picture of this size.
    pub(crate) fn picture(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        DynamicImage::from(RgbImage::new(width, height))
            .write_to(&mut bytes, format)
            .unwrap();
        bytes.into_inner()
    }

    #[test]
    fn the_format_and_the_aspect_ratio_stay_and_nothing_is_enlarged() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png] {
            for (width, expected) in [(200, (200, 150)), (2_000, (400, 300))] {
                let small = of(&picture(400, 300, format), format, width, 1 << 20).unwrap();
                assert_eq!(image::guess_format(&small).unwrap(), format);
                let small = image::load_from_memory(&small).unwrap();
                assert_eq!(small.dimensions(), expected);
            }
        }
    }
}
