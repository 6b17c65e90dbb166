package dev.edgecv.core

import dev.edgecv.core.Benchmark.Companion.header
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.addJsonObject
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.put
import kotlinx.serialization.json.putJsonArray
import kotlinx.serialization.json.putJsonObject
import kotlin.math.sqrt

/**
 * A photo whose class is known.
 *
 * @property label the name of its class.
 * @property read decodes it; throws [InputError] if it cannot be read.
 */
class LabelledPhoto(val label: String, val read: () -> Picture)

/** How many photos of an accuracy run are done. */
data class Progress(val done: Int, val photos: Int)

/** Measures how often a model names the class of labelled photos, and writes what `edge-cv report` merges. */
class Accuracy(private val photos: List<LabelledPhoto>, private val machine: Machine) {
    val size: Int get() = photos.size

    /**
     * Classifies the photos. Those of an unknown class are left out, those that cannot be read are counted.
     *
     * @param progress called up to a hundred times.
     * @param goesOn asked before each photo; if it returns false, [Cancelled] is thrown.
     * @throws InputError if nothing can be measured, or if the delegate fails: the result is of one delegate only.
     */
    internal fun measure(model: OpenModel, file: String, settings: Settings, progress: (Progress) -> Unit, goesOn: () -> Boolean): JsonObject {
        val runtime = model.runtimeName
        val folders = photos.map { it.label }.distinct()
        val positions = positions(folders, model)
        val counts = folders.filter { it in positions }.associateWith { Count() }
        var reason: String? = null
        for ((n, photo) in photos.withIndex()) {
            if (!goesOn()) throw Cancelled()
            val expected = positions[photo.label]
            val count = counts[photo.label]
            if (expected != null && count != null) {
                try {
                    val picture = photo.read()
                    count.add(model.classify(picture, 0).first, expected)
                } catch (error: DelegateError) {
                    throw error
                } catch (error: InputError) {
                    count.unread++
                    reason = reason ?: error.reason()
                }
                if (model.runtimeName != runtime) throw InputError("$runtime failed, so the run was stopped: ${model.fallback}")
            }
            if (PERCENT * (n + 1) / size > PERCENT * n / size) progress(Progress(n + 1, size))
        }
        if (counts.values.sumOf { it.images } == 0) throw InputError("None of the photos can be read: $reason")
        return result(model, file, settings, counts, folders.filterNot { it in positions }, reason)
    }

    private fun positions(folders: List<String>, model: OpenModel): Map<String, Set<Int>> {
        if (folders.isEmpty()) throw InputError("The folder must have a subfolder of photos for each class. Received: none")
        val outputs = maxOf(2, model.outputs)
        val classes = classNames(model.record, model.outputs) ?: List(outputs) { it.toString() }
        val found = classPositions(folders, classes)
        if (found.isEmpty()) {
            throw InputError("Subfolders must have the names of classes, such as ${classes.first()}. Received: ${folders.take(5).joinToString()}")
        }
        return found
    }

    private fun result(
        model: OpenModel, file: String, settings: Settings, counts: Map<String, Count>, unknown: List<String>, reason: String?,
    ): JsonObject = buildJsonObject {
        header(file, model.sha256(), machine)
        put("latency", JsonArray(emptyList()))
        putJsonObject("accuracy") {
            put("runtime", model.runtimeName)
            put("threads", settings.threads)
            put("images", counts.values.sumOf { it.images })
            put("top1", counts.values.sumOf { it.top1 })
            put("top5", counts.values.sumOf { it.top5 })
            put("unread", counts.values.sumOf { it.unread })
            put("unread_reason", reason)
            put("unknown", JsonArray(unknown.take(MOST_UNKNOWN).map(::JsonPrimitive)))
            putJsonArray("classes") {
                for ((name, count) in counts) addJsonObject {
                    put("name", name)
                    put("images", count.images)
                    put("top1", count.top1)
                }
            }
        }
    }

    private class Count {
        var images = 0
        var top1 = 0
        var top5 = 0
        var unread = 0

        fun add(predictions: List<Prediction>, expected: Set<Int>) {
            images++
            if (predictions.firstOrNull()?.index in expected) top1++
            if (predictions.take(TOP).any { it.index in expected }) top5++
        }
    }

    private companion object {
        const val TOP = 5
        const val PERCENT = 100
        const val MOST_UNKNOWN = 100
    }
}

/**
 * The indices of the classes with a name, for each name that is among them; more than one where classes share it. A name may differ
 * in case, spaces, hyphens and underscores from one class alone. If no name is there and all are numbers, they are the indices.
 * These are the rules of `positions_of` in `edge_cv/data/labels.py`.
 */
fun classPositions(names: List<String>, classes: List<String>): Map<String, Set<Int>> {
    val exact = classes.indices.groupBy { classes[it] }
    val alike = classes.indices.groupBy { comparable(classes[it]) }
    val found = LinkedHashMap<String, Set<Int>>()
    for (name in names) {
        val candidates = exact[name] ?: alike[comparable(name)]?.takeIf { it.size == 1 } ?: continue
        found[name] = candidates.toSet()
    }
    if (found.isNotEmpty()) return found
    val numbers = names.associateWith { name -> name.toIntOrNull()?.takeIf { it.toString() == name && it in classes.indices } }
    return if (numbers.values.any { it == null }) emptyMap() else numbers.mapValues { setOf(it.value!!) }
}

private fun comparable(name: String) = name.lowercase().split(' ', '_', '-', '\t').filter { it.isNotEmpty() }.joinToString(" ")

/** Wilson's 95 % score interval of the share [hits] / [trials], 0..1; as `wilson_interval` in `edge_cv/intervals.py`. */
fun wilsonInterval(hits: Int, trials: Int): Pair<Double, Double> {
    require(trials > 0 && hits in 0..trials)
    val z = 1.959963984540054 // the normal distribution's quantile 0.975
    val share = hits.toDouble() / trials
    val centre = share + z * z / (2 * trials)
    val width = z * sqrt(share * (1 - share) / trials + z * z / (4.0 * trials * trials))
    val scale = 1 + z * z / trials
    return maxOf(0.0, (centre - width) / scale) to minOf(1.0, (centre + width) / scale)
}
