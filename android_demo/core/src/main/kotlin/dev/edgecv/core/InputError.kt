package dev.edgecv.core

/** What was given cannot be used: a model, its sidecar, a photo, a request. The message is one sentence for people. */
class InputError(message: String, cause: Throwable? = null) : Exception(message, cause)

/** The first line of what went wrong, for a sentence that goes on after a colon. */
internal fun Throwable.reason(): String =
    (message ?: javaClass.simpleName).lineSequence().map { it.trim() }.firstOrNull { it.isNotEmpty() }?.take(200)
        ?: javaClass.simpleName
