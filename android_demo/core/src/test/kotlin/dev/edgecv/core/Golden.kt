package dev.edgecv.core

import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.double
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import java.security.MessageDigest

/** The cases that golden/make_golden.py computed in Python, by group. */
object Golden {
    private val groups: JsonObject by lazy {
        val text = Golden::class.java.getResource("/golden/golden.json")!!.readText()
        Json.parseToJsonElement(text).jsonObject
    }

    fun cases(group: String): List<JsonObject> = groups.getValue(group).jsonArray.map { it.jsonObject }

    /** Bytes of the linear congruential generator in make_golden.py. */
    fun noise(count: Int, seed: Int): ByteArray {
        var state = seed
        return ByteArray(count) {
            state = state * 1664525 + 1013904223
            (state ushr 24).toByte()
        }
    }

    fun photo(case: JsonObject): Photo {
        val (width, height, seed) = case.ints("photo")
        val pixels = noise(3 * width * height, seed)
        if (seed % 2 != 0) for (i in pixels.indices) pixels[i] = if (pixels[i] >= 0) 0 else -1
        return Photo(width, height, pixels)
    }

    fun digest(content: ByteArray): String =
        MessageDigest.getInstance("SHA-256").digest(content).joinToString("") { "%02x".format(it) }.take(32)
}

fun JsonObject.ints(name: String): List<Int> = getValue(name).jsonArray.map { it.jsonPrimitive.int }

fun JsonObject.floats(name: String): List<Float> = (getValue(name) as JsonArray).map { it.jsonPrimitive.double.toFloat() }

fun JsonObject.int(name: String): Int = getValue(name).jsonPrimitive.int

fun JsonObject.intOrNull(name: String): Int? = getValue(name).orNull()?.jsonPrimitive?.int

fun JsonObject.floatOrNull(name: String): Float? = getValue(name).orNull()?.jsonPrimitive?.double?.toFloat()

fun JsonObject.text(name: String): String = getValue(name).jsonPrimitive.content

private fun JsonElement.orNull() = takeUnless { it is JsonNull }
