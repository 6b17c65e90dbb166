package dev.edgecv.core

/** An upright picture of RGB pixels: a photo or a camera frame. */
interface Picture {
    val width: Int
    val height: Int

    /**
     * Copies a rectangle, which must lie within the picture.
     *
     * @param rgb receives three bytes a pixel, rows from the top.
     */
    fun copy(left: Int, top: Int, width: Int, height: Int, rgb: ByteArray)
}

/**
 * An RGB photo.
 *
 * @property rgb three bytes a pixel, rows from the top.
 */
class Photo(override val width: Int, override val height: Int, val rgb: ByteArray) : Picture {
    init {
        if (width < 1 || height < 1) throw InputError("A photo must have pixels. Received: $width x $height")
        require(rgb.size.toLong() == 3L * width * height) { "${rgb.size} bytes for $width x $height" }
    }

    override fun copy(left: Int, top: Int, width: Int, height: Int, rgb: ByteArray) {
        for (y in 0 until height) {
            System.arraycopy(this.rgb, 3 * ((top + y) * this.width + left), rgb, 3 * y * width, 3 * width)
        }
    }

    /** The luma of a pixel, ITU-R BT.601, rounded as Pillow does. */
    fun luma(at: Int): Int {
        val red = rgb[3 * at].toInt() and 255
        val green = rgb[3 * at + 1].toInt() and 255
        val blue = rgb[3 * at + 2].toInt() and 255
        return (19595 * red + 38470 * green + 7471 * blue + 0x8000) shr 16
    }

    /**
     * The upright photo for a stored EXIF orientation (Exif 3.0, 4.6.5.1.6).
     *
     * @param orientation 1..8; any other value is treated as 1, upright.
     */
    fun upright(orientation: Int): Photo {
        if (orientation !in 2..8) return this
        val swapped = orientation >= 5
        val newWidth = if (swapped) height else width
        val newHeight = if (swapped) width else height
        val turned = ByteArray(rgb.size)
        var to = 0
        for (y in 0 until newHeight) {
            for (x in 0 until newWidth) {
                val fromX: Int
                val fromY: Int
                when (orientation) {
                    2 -> { fromX = width - 1 - x; fromY = y }
                    3 -> { fromX = width - 1 - x; fromY = height - 1 - y }
                    4 -> { fromX = x; fromY = height - 1 - y }
                    5 -> { fromX = y; fromY = x }
                    6 -> { fromX = y; fromY = height - 1 - x }
                    7 -> { fromX = width - 1 - y; fromY = height - 1 - x }
                    else -> { fromX = width - 1 - y; fromY = x }
                }
                val from = 3 * (fromY * width + fromX)
                turned[to] = rgb[from]
                turned[to + 1] = rgb[from + 1]
                turned[to + 2] = rgb[from + 2]
                to += 3
            }
        }
        return Photo(newWidth, newHeight, turned)
    }

    companion object {
        /**
         * A photo from pixels 0xAARRGGBB, not premultiplied; transparent pixels are blended with white.
         *
         * @param row copies the row with that number into the array.
         */
        fun ofArgb(width: Int, height: Int, row: (Int, IntArray) -> Unit): Photo {
            val rgb = ByteArray(3 * width * height)
            val pixels = IntArray(width)
            var to = 0
            for (y in 0 until height) {
                row(y, pixels)
                for (pixel in pixels) {
                    val alpha = pixel ushr 24
                    for (shift in 16 downTo 0 step 8) {
                        val value = pixel ushr shift and 255
                        rgb[to++] = (if (alpha == 255) value else (value * alpha + 255 * (255 - alpha) + 127) / 255).toByte()
                    }
                }
            }
            return Photo(width, height, rgb)
        }

        /** The power of two that divides a photo's sides so that it has at most [MAX_PIXELS]. */
        fun reduction(width: Int, height: Int): Int {
            var by = 1
            while ((width / by).toLong() * (height / by) > MAX_PIXELS) by *= 2
            return by
        }

        const val MAX_PIXELS = 16_000_000
    }
}
