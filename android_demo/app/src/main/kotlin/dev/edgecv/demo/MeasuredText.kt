package dev.edgecv.demo

import android.content.Context
import dev.edgecv.core.Measured
import dev.edgecv.core.wilsonInterval
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.contentOrNull
import kotlinx.serialization.json.doubleOrNull
import kotlinx.serialization.json.intOrNull

/** The result of a benchmark or an accuracy run in words. */
object MeasuredText {
    fun title(context: Context, measured: Measured): String =
        context.getString(if (accuracy(measured) != null) R.string.accuracy_title else R.string.measured_title, measured.file)

    fun of(context: Context, measured: Measured): String {
        val result = measured.result
        result.value("error")?.contentOrNull?.let { return context.getString(R.string.measured_failed, it) }
        accuracy(measured)?.let { return words(context, it) }
        val rows = (result["latency"] as? JsonArray).orEmpty().filterIsInstance<JsonObject>()
        val times = rows.map {
            val runs = it.value("runs")?.intOrNull ?: 0
            context.resources.getQuantityString(
                R.plurals.measured_latency, runs, it.number("p50_ms"), it.number("p90_ms"), runs,
                it.value("runtime")?.contentOrNull.orEmpty(), it.value("threads")?.intOrNull ?: 0,
            )
        }
        val memory = result.value("peak_memory_bytes")?.doubleOrNull?.let { context.getString(R.string.measured_memory, it / 1e6) }
        return (times + listOfNotNull(memory)).joinToString("\n")
    }

    private fun accuracy(measured: Measured) = measured.result["accuracy"] as? JsonObject

    private fun words(context: Context, accuracy: JsonObject): String {
        fun count(name: String) = accuracy.value(name)?.intOrNull ?: 0
        val images = maxOf(1, count("images"))
        val (low, high) = wilsonInterval(count("top1").coerceIn(0, images), images)
        val unknown = (accuracy["unknown"] as? JsonArray).orEmpty().mapNotNull { (it as? JsonPrimitive)?.contentOrNull }
        return listOfNotNull(
            context.resources.getQuantityString(
                R.plurals.accuracy_top1, images, PERCENT * count("top1") / images, images, PERCENT * low, PERCENT * high,
            ),
            context.getString(R.string.accuracy_top5, PERCENT * count("top5") / images),
            context.getString(R.string.running, accuracy.value("runtime")?.contentOrNull.orEmpty(), count("threads")),
            if (count("unread") == 0) null
            else context.getString(R.string.accuracy_unread, count("unread"), accuracy.value("unread_reason")?.contentOrNull.orEmpty()),
            if (unknown.isEmpty()) null else context.getString(R.string.accuracy_unknown, unknown.take(SHOWN_FOLDERS).joinToString()),
        ).joinToString("\n")
    }

    private const val PERCENT = 100.0
    private const val SHOWN_FOLDERS = 5

    private fun JsonObject.value(name: String) = this[name] as? JsonPrimitive

    private fun JsonObject.number(name: String) = value(name)?.doubleOrNull ?: 0.0
}
