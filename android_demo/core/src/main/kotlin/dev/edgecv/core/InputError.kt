package dev.edgecv.core

/** A model, a sidecar, a photo or a request is invalid. The message is one sentence for the user. */
open class InputError(message: String, cause: Throwable? = null) : Exception(message, cause)

/** A delegate is missing on this device, or it rejects a model that another delegate may run. */
class DelegateError(message: String, cause: Throwable? = null) : InputError(message, cause)

/** The user or the end of the app stopped the work. */
class Cancelled : InputError("It was stopped.")

/** The first line of the message, to be appended to a sentence after a colon. */
fun Throwable.reason(): String =
    (message ?: javaClass.simpleName).lineSequence().map { it.trim() }.firstOrNull { it.isNotEmpty() }?.take(200)
        ?: javaClass.simpleName
