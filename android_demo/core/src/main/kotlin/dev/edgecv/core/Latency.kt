package dev.edgecv.core

import kotlin.math.floor

/** The percentile [share] (0..1), interpolated linearly between neighbours, as numpy.percentile does. */
fun percentile(numbers: List<Double>, share: Double): Double {
    require(numbers.isNotEmpty() && share in 0.0..1.0)
    val sorted = numbers.sorted()
    val position = share * (sorted.size - 1)
    val below = floor(position).toInt()
    val above = minOf(below + 1, sorted.size - 1)
    val part = position - below
    val difference = sorted[above] - sorted[below]
    // numpy interpolates from the nearer end, which makes the ends exact
    return if (part < 0.5) sorted[below] + difference * part else sorted[above] - difference * (1 - part)
}

/** The times of one photo in milliseconds: until the input is ready, in the runtime, and in all. */
data class Timing(val preprocessMs: Double, val inferenceMs: Double, val totalMs: Double)

/** Median and 90th percentile, in milliseconds. */
data class Spread(val medianMs: Double, val p90Ms: Double)

/** The timings of the last photos, [LAST] at most. */
data class Timings(val last: List<Timing> = emptyList()) {
    operator fun plus(timing: Timing) = Timings((last + timing).takeLast(LAST))

    fun spread(of: (Timing) -> Double): Spread? =
        if (last.isEmpty()) null else last.map(of).let { Spread(percentile(it, 0.5), percentile(it, 0.9)) }

    companion object {
        const val LAST = 100
    }
}
