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
private const val ONE = 1 shl PRECISION_BITS
private const val HALF = ONE shr 1

// a table, because branches on noisy pixels are slow; sums of weights and pixels are 32-bit, so this holds all of them
private const val CLIP_ZERO = 1 shl (31 - PRECISION_BITS)
private val CLIPPED = ByteArray(2 * CLIP_ZERO) { (it - CLIP_ZERO).coerceIn(0, 255).toByte() }

private fun clipped(sum: Int): Byte = CLIPPED[(sum shr PRECISION_BITS) + CLIP_ZERO]

/**
 * One axis of a resize, for a part of the result: the weights of the source pixels of each new pixel.
 *
 * The new pixel `i` of the part is the sum of the source pixels from `first[i]`, times `values[start[i]]` up to, not
 * including, `values[start[i + 1]]`.
 */
internal class Axis private constructor(val first: IntArray, val start: IntArray, val values: IntArray) {
    val count get() = first.size

    /** The source pixels that the part needs: the first one, and how many. */
    val begin = first.minOrNull() ?: 0
    val length = (first.indices.maxOfOrNull { first[it] + start[it + 1] - start[it] } ?: 0) - begin

    companion object {
        /**
         * @param size number of source pixels.
         * @param newSize number of pixels of the whole result.
         * @param from first pixel of the part.
         * @param count number of pixels of the part.
         */
        fun of(size: Int, newSize: Int, interpolation: Interpolation, from: Int, count: Int): Axis = when {
            newSize == size -> single(IntArray(count) { from + it })
            interpolation == Interpolation.NEAREST -> single(nearest(size, newSize, from, count))
            else -> filtered(size, newSize, interpolation, from, count)
        }

        private fun single(first: IntArray) = Axis(first, IntArray(first.size + 1) { it }, IntArray(first.size) { ONE })

        /** The step is accumulated as in Pillow, because a product rounds differently. */
        private fun nearest(size: Int, newSize: Int, from: Int, count: Int): IntArray {
            val step = size.toDouble() / newSize
            var place = step * 0.5
            repeat(from) { place += step }
            return IntArray(count) { place.toInt().coerceAtMost(size - 1).also { place += step } }
        }

        private fun filtered(size: Int, newSize: Int, interpolation: Interpolation, from: Int, count: Int): Axis {
            val scale = size.toDouble() / newSize
            val filterScale = maxOf(scale, 1.0)
            val reach = interpolation.reach * filterScale
            val real = DoubleArray(ceil(reach).toInt() * 2 + 1)
            val first = IntArray(count)
            val start = IntArray(count + 1)
            var values = IntArray(count * 8)
            for (at in 0 until count) {
                val centre = (from + at + 0.5) * scale
                val begin = (centre - reach + 0.5).toInt().coerceAtLeast(0)
                val length = (centre + reach + 0.5).toInt().coerceAtMost(size) - begin
                var sum = 0.0
                for (i in 0 until length) {
                    real[i] = interpolation.weight((begin + i - centre + 0.5) * (1.0 / filterScale))
                    sum += real[i]
                }
                first[at] = begin
                start[at + 1] = start[at] + length
                if (start[at + 1] > values.size) values = values.copyOf(2 * values.size + length)
                for (i in 0 until length) {
                    val scaled = (if (sum != 0.0) real[i] / sum else real[i]) * ONE
                    values[start[at] + i] = (if (scaled < 0) scaled - 0.5 else scaled + 0.5).toInt()
                }
            }
            return Axis(first, start, values)
        }
    }
}

/** Resizes along the rows: [rows] rows that begin at [axis]`.begin` of the source, three bytes a pixel. */
internal fun resizeColumns(source: ByteArray, rows: Int, axis: Axis, result: ByteArray) {
    val stride = 3 * axis.length
    val first = axis.first
    val start = axis.start
    val values = axis.values
    var to = 0
    for (y in 0 until rows) {
        val row = y * stride - 3 * axis.begin
        for (x in first.indices) {
            var from = row + 3 * first[x]
            var red = HALF
            var green = HALF
            var blue = HALF
            for (i in start[x] until start[x + 1]) {
                val weight = values[i]
                red += (source[from].toInt() and 255) * weight
                green += (source[from + 1].toInt() and 255) * weight
                blue += (source[from + 2].toInt() and 255) * weight
                from += 3
            }
            result[to] = clipped(red)
            result[to + 1] = clipped(green)
            result[to + 2] = clipped(blue)
            to += 3
        }
    }
}

/** Resizes along the columns; the source begins at row [axis]`.begin`. [sums] has at least `3 * columns` elements. */
internal fun resizeRows(source: ByteArray, columns: Int, axis: Axis, sums: IntArray, result: ByteArray) {
    val stride = 3 * columns
    for (y in axis.first.indices) {
        sums.fill(HALF, 0, stride)
        var from = (axis.first[y] - axis.begin) * stride
        for (i in axis.start[y] until axis.start[y + 1]) {
            val weight = axis.values[i]
            for (x in 0 until stride) sums[x] += (source[from + x].toInt() and 255) * weight
            from += stride
        }
        for (x in 0 until stride) result[y * stride + x] = clipped(sums[x])
    }
}
