package dev.edgecv.core

import kotlin.math.floor

/** The percentile [share] (0..1) of some numbers, interpolated linearly between neighbours, as numpy does it. */
fun percentile(numbers: List<Double>, share: Double): Double {
    require(numbers.isNotEmpty() && share in 0.0..1.0)
    val sorted = numbers.sorted()
    val place = share * (sorted.size - 1)
    val below = floor(place).toInt()
    val above = minOf(below + 1, sorted.size - 1)
    val part = place - below
    val difference = sorted[above] - sorted[below]
    // numpy takes the end that is nearer, so that the result is exact there
    return if (part < 0.5) sorted[below] + difference * part else sorted[above] - difference * (1 - part)
}

/** How long one photo took, in milliseconds: until the input was ready, in the runtime, and from photo to answer. */
data class Timing(val preprocessMs: Double, val inferenceMs: Double, val totalMs: Double)

/** Median and 90th percentile, in milliseconds. */
data class Spread(val medianMs: Double, val p90Ms: Double)

/** The timings of the last photos, at most [LAST]. */
data class Timings(val last: List<Timing> = emptyList()) {
    operator fun plus(timing: Timing) = Timings((last + timing).takeLast(LAST))

    fun spread(of: (Timing) -> Double): Spread? =
        if (last.isEmpty()) null else last.map(of).let { Spread(percentile(it, 0.5), percentile(it, 0.9)) }

    companion object {
        const val LAST = 100
    }
}
