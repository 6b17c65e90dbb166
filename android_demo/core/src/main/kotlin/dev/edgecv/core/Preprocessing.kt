package dev.edgecv.core

/** Which part of a photo a model sees. */
enum class Rule { CROP_THEN_RESIZE, RESIZE_THEN_CROP, STRETCH }

/**
 * From an upright photo of any size to the pixels that a model sees, and to the range that it takes; the same value
 * that the artifact's record holds and that calibration and evaluation used.
 *
 * @property imageSize height and width of the result, in pixels.
 * @property resizeTo length of the photo's short side when the central square of [imageSize] is cut out, in pixels.
 * @property mean per channel; the model's input is `(pixel - mean) / std`, pixel in 0..255.
 */
data class Preprocessing(
    val imageSize: Int,
    val resizeTo: Int = imageSize,
    val rule: Rule = Rule.CROP_THEN_RESIZE,
    val interpolation: Interpolation = Interpolation.BICUBIC,
    val mean: List<Float> = listOf(0f, 0f, 0f),
    val std: List<Float> = listOf(1f, 1f, 1f),
) {
    init {
        if (imageSize !in 1..MAX_IMAGE_SIZE) {
            throw InputError("The model's image_size must be 1 to $MAX_IMAGE_SIZE pixels. Received: $imageSize")
        }
        if (resizeTo < imageSize || resizeTo > MAX_ENLARGEMENT * imageSize) {
            throw InputError(
                "The model's resize_to must be 1 to $MAX_ENLARGEMENT times its image_size, $imageSize. Received: $resizeTo",
            )
        }
        if (mean.size != 3 || std.size != 3 || (mean + std).any { !it.isFinite() } || std.any { it <= 0 }) {
            throw InputError("The model's mean must be three finite numbers and std three above 0. Received: $mean, $std")
        }
    }

    /** Whether the model's input is the pixels 0..255 themselves. */
    val takesPixels get() = mean.all { it == 0f } && std.all { it == 1f }

    /** The part of a photo that the model sees, [imageSize] pixels wide and high. */
    fun cropAndResize(photo: Photo): Photo {
        val short = minOf(photo.width, photo.height)
        return when (rule) {
            Rule.CROP_THEN_RESIZE -> {
                val side = (short.toLong() * imageSize / resizeTo).toInt().coerceAtLeast(1)
                photo.crop((photo.width - side + 1) / 2, (photo.height - side + 1) / 2, side, side)
                    .resize(imageSize, imageSize, interpolation)
            }
            Rule.RESIZE_THEN_CROP -> {
                val seen = photo.shortened(LONGEST_ASPECT.toLong() * short)
                val width = (seen.width.toLong() * resizeTo / short).toInt().coerceAtLeast(imageSize)
                val height = (seen.height.toLong() * resizeTo / short).toInt().coerceAtLeast(imageSize)
                val resized = seen.resize(width, height, interpolation)
                resized.crop(halfToEven(width - imageSize), halfToEven(height - imageSize), imageSize, imageSize)
            }
            Rule.STRETCH -> photo.resize(imageSize, imageSize, interpolation)
        }
    }

    companion object {
        const val MAX_IMAGE_SIZE = 4096
        const val MAX_ENLARGEMENT = 16

        // A longer photo is cut first: the result does not reach out there, and a strip would be resized to hundreds
        // of times its size.
        private const val LONGEST_ASPECT = 16

        private fun Photo.shortened(most: Long): Photo {
            if (maxOf(width, height) <= most) return this
            val newWidth = minOf(width.toLong(), most).toInt()
            val newHeight = minOf(height.toLong(), most).toInt()
            return crop((width - newWidth) / 2, (height - newHeight) / 2, newWidth, newHeight)
        }

        private fun halfToEven(number: Int) = Math.rint(number / 2.0).toInt()
    }
}
