package dev.edgecv.demo

import android.content.Context
import dev.edgecv.core.Measured
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.contentOrNull
import kotlinx.serialization.json.doubleOrNull
import kotlinx.serialization.json.intOrNull

/** The result of a benchmark in words. */
object MeasuredText {
    fun of(context: Context, measured: Measured): String {
        val result = measured.result
        result.value("error")?.contentOrNull?.let { return context.getString(R.string.measured_failed, it) }
        val rows = (result["latency"] as? JsonArray).orEmpty().filterIsInstance<JsonObject>()
        val times = rows.map {
            context.getString(
                R.string.measured_latency, it.number("p50_ms"), it.number("p90_ms"), it.value("runs")?.intOrNull ?: 0,
                it.value("runtime")?.contentOrNull.orEmpty(), it.value("threads")?.intOrNull ?: 0,
            )
        }
        val memory = result.value("peak_memory_bytes")?.doubleOrNull?.let { context.getString(R.string.measured_memory, it / 1e6) }
        return (times + listOfNotNull(memory)).joinToString("\n")
    }

    private fun JsonObject.value(name: String) = this[name] as? JsonPrimitive

    private fun JsonObject.number(name: String) = value(name)?.doubleOrNull ?: 0.0
}
