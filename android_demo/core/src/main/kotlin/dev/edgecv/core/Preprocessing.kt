package dev.edgecv.core

/** How the square that a model takes is cut from a photo. */
enum class Rule { CROP_THEN_RESIZE, RESIZE_THEN_CROP, STRETCH }

/**
 * Crop, resize and input range: how an upright photo of any size becomes a model's input. The value is the one in the
 * model's record, which calibration and evaluation used too.
 *
 * @property imageSize height and width of the result, in pixels.
 * @property resizeTo length of the photo's short side when the central square of [imageSize] is cropped, in pixels.
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

    /** Whether the model takes pixels 0..255 without normalization. */
    val takesPixels get() = mean.all { it == 0f } && std.all { it == 1f }

    /** The cropped and resized photo, [imageSize] pixels wide and high. */
    fun cropAndResize(photo: Photo): Photo {
        val short = minOf(photo.width, photo.height)
        return when (rule) {
            Rule.CROP_THEN_RESIZE -> {
                val side = (short.toLong() * imageSize / resizeTo).toInt().coerceAtLeast(1)
                photo.crop((photo.width - side + 1) / 2, (photo.height - side + 1) / 2, side, side)
                    .resize(imageSize, imageSize, interpolation)
            }
            Rule.RESIZE_THEN_CROP -> {
                val cut = photo.shortened(LONGEST_ASPECT.toLong() * short)
                val width = (cut.width.toLong() * resizeTo / short).toInt().coerceAtLeast(imageSize)
                val height = (cut.height.toLong() * resizeTo / short).toInt().coerceAtLeast(imageSize)
                val resized = cut.resize(width, height, interpolation)
                resized.crop(halfToEven(width - imageSize), halfToEven(height - imageSize), imageSize, imageSize)
            }
            Rule.STRETCH -> photo.resize(imageSize, imageSize, interpolation)
        }
    }

    companion object {
        const val MAX_IMAGE_SIZE = 4096
        const val MAX_ENLARGEMENT = 16

        // A longer photo is cropped first: the result does not depend on its ends, and resizing a strip would make it
        // hundreds of times larger.
        private const val LONGEST_ASPECT = 16

        private fun Photo.shortened(longest: Long): Photo {
            if (maxOf(width, height) <= longest) return this
            val newWidth = minOf(width.toLong(), longest).toInt()
            val newHeight = minOf(height.toLong(), longest).toInt()
            return crop((width - newWidth) / 2, (height - newHeight) / 2, newWidth, newHeight)
        }

        private fun halfToEven(number: Int) = Math.rint(number / 2.0).toInt()
    }
}
