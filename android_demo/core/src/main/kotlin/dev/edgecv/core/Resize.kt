package dev.edgecv.core

import kotlin.math.PI
import kotlin.math.abs
import kotlin.math.ceil
import kotlin.math.sin

/** Resampling filters, with antialiasing except for nearest. [reach] is the filter's radius in pixels of the result. */
enum class Interpolation(internal val reach: Double, internal val weight: (Double) -> Double) {
    NEAREST(0.0, { 0.0 }),
    BILINEAR(1.0, { x -> if (abs(x) < 1) 1 - abs(x) else 0.0 }),
    BICUBIC(2.0, ::cubic),
    LANCZOS(3.0, { x -> if (-3.0 <= x && x < 3.0) sinc(x) * sinc(x / 3) else 0.0 }),
}

private const val A = -0.5 // Catmull-Rom

private fun cubic(signed: Double): Double {
    val x = abs(signed)
    return when {
        x < 1 -> ((A + 2) * x - (A + 3)) * x * x + 1
        x < 2 -> (((x - 5) * x + 8) * x - 4) * A
        else -> 0.0
    }
}

private fun sinc(x: Double) = if (x == 0.0) 1.0 else sin(x * PI) / (x * PI)

// Weights are in fixed point with this many fractional bits, so that sums are equal on every machine and in Pillow.
private const val PRECISION_BITS = 32 - 8 - 2

/** Resizes the photo in two passes, each rounded to bytes; equal bit for bit to Pillow 13's `resize`. */
fun Photo.resize(width: Int, height: Int, interpolation: Interpolation): Photo {
    if (interpolation == Interpolation.NEAREST) return nearest(width, height)
    // Pillow runs the pass first that saves more work. Both passes round, so the order changes the result.
    val rowsLost = this.height - height
    val rowsFirst = rowsLost > 0 && rowsLost > 2 * (this.width - width)
    return if (rowsFirst) rows(height, interpolation).columns(width, interpolation)
    else columns(width, interpolation).rows(height, interpolation)
}

private fun Photo.nearest(width: Int, height: Int): Photo {
    val columns = nearestOf(this.width, width)
    val rows = nearestOf(this.height, height)
    val result = ByteArray(3 * width * height)
    var to = 0
    for (y in rows) {
        for (x in columns) {
            System.arraycopy(rgb, 3 * (y * this.width + x), result, to, 3)
            to += 3
        }
    }
    return Photo(width, height, result)
}

/** The source pixel of each new pixel. The step is accumulated as in Pillow, because a product rounds differently. */
private fun nearestOf(size: Int, newSize: Int): IntArray {
    val step = size.toDouble() / newSize
    var place = step * 0.5
    return IntArray(newSize) { place.toInt().coerceAtMost(size - 1).also { place += step } }
}

/** For each pixel of the result the first source pixel and the weights of the source pixels from there. */
private class Weights(val first: IntArray, val values: Array<IntArray>) {
    companion object {
        fun of(size: Int, newSize: Int, interpolation: Interpolation): Weights {
            val scale = size.toDouble() / newSize
            val filterScale = maxOf(scale, 1.0)
            val reach = interpolation.reach * filterScale
            val length = ceil(reach).toInt() * 2 + 1
            val first = IntArray(newSize)
            val real = DoubleArray(length)
            val values = Array(newSize) { at ->
                val centre = (at + 0.5) * scale
                val begin = (centre - reach + 0.5).toInt().coerceAtLeast(0)
                val end = (centre + reach + 0.5).toInt().coerceAtMost(size)
                var sum = 0.0
                for (i in begin until end) {
                    real[i - begin] = interpolation.weight((i - centre + 0.5) * (1.0 / filterScale))
                    sum += real[i - begin]
                }
                first[at] = begin
                IntArray(end - begin) { i ->
                    val share = if (sum != 0.0) real[i] / sum else real[i]
                    val scaled = share * (1 shl PRECISION_BITS)
                    (if (share < 0) scaled - 0.5 else scaled + 0.5).toInt()
                }
            }
            return Weights(first, values)
        }
    }
}

private const val HALF = 1 shl (PRECISION_BITS - 1)

private fun clipped(sum: Int): Byte = (sum shr PRECISION_BITS).coerceIn(0, 255).toByte()

private fun Photo.columns(newWidth: Int, interpolation: Interpolation): Photo {
    if (newWidth == width) return this
    val weights = Weights.of(width, newWidth, interpolation)
    val result = ByteArray(3 * newWidth * height)
    var to = 0
    for (y in 0 until height) {
        val row = 3 * y * width
        for (x in 0 until newWidth) {
            var from = row + 3 * weights.first[x]
            var red = HALF
            var green = HALF
            var blue = HALF
            for (weight in weights.values[x]) {
                red += (rgb[from].toInt() and 255) * weight
                green += (rgb[from + 1].toInt() and 255) * weight
                blue += (rgb[from + 2].toInt() and 255) * weight
                from += 3
            }
            result[to] = clipped(red)
            result[to + 1] = clipped(green)
            result[to + 2] = clipped(blue)
            to += 3
        }
    }
    return Photo(newWidth, height, result)
}

private fun Photo.rows(newHeight: Int, interpolation: Interpolation): Photo {
    if (newHeight == height) return this
    val weights = Weights.of(height, newHeight, interpolation)
    val stride = 3 * width
    val result = ByteArray(stride * newHeight)
    val sums = IntArray(stride)
    for (y in 0 until newHeight) {
        sums.fill(HALF)
        var from = weights.first[y] * stride
        for (weight in weights.values[y]) {
            for (x in 0 until stride) sums[x] += (rgb[from + x].toInt() and 255) * weight
            from += stride
        }
        for (x in 0 until stride) result[y * stride + x] = clipped(sums[x])
    }
    return Photo(width, newHeight, result)
}
