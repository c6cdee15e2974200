/* Continues a prompt with a generate graph that the recurrent zoo exported, as `zoo generate` does:
 *     cc -O2 -I ORT/include generate.c -L ORT/lib -lonnxruntime -o generate
 *     ./generate FILE.onnx --prompt "the " --length 200 --temperature 0.8 --seed 7 */
#include <locale.h>
#include <onnxruntime_c_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#include <wctype.h>
#include "numpy_random.h"

#define FAIL(code, ...) (fprintf(stderr, "error: " __VA_ARGS__), putc('\n', stderr), exit(code))
#define CALL(function, ...) check(ort->function(__VA_ARGS__))
static const OrtApi *ort;
static OrtSession *session;
static OrtAllocator *allocator;

static void check(OrtStatus *status) {
    const char *message = status ? ort->GetErrorMessage(status) : "";
    if (status) FAIL(1, "%.*s", (int)strcspn(message, "\n"), message);
}

/* JSON as Python's json.dumps writes it: ASCII, with ": " after each key. A quotation mark within a
 * string has a backslash before it, so `"key": ` is found nowhere else. */
static const char *member(const char *json, const char *key) {
    char quoted[32];
    snprintf(quoted, sizeof quoted, "\"%s\": ", key);
    const char *found = strstr(json, quoted);
    return found ? found + strlen(quoted) : "\"\"";
}

static wchar_t *string(const char *json) {
    wchar_t *text = calloc(strlen(json) + 1, sizeof *text), *end = text;
    for (unsigned point, low; *++json != '"'; *end++ = (wchar_t)point) {
        if ((point = (uint8_t)*json) != '\\') continue;
        const char *escape = strchr("n\nt\tr\rb\bf\f", *++json);
        point = (uint8_t)(escape ? escape[1] : *json);
        if (point == 'u' && sscanf(json + 1, "%4x", &point)) json += 4;
        if (point >> 10 == 0x36 && sscanf(json, "%*c\\u%4x", &low)) { /* half of a surrogate pair */
            point = 0x10000 + ((point & 0x3FF) << 10 | (low & 0x3FF));
            json += 6;
        }
    }
    return text;
}

/* Makes the tensor of an input, of `size` rows, and returns its values: a number that fills it, or
 * the bytes that a string has in base64. */
static void *tensor(OrtValue **made, size_t input, size_t size, const char *values) {
    static const uint8_t sizes[] = {0, 4, 1, 1, 2, 2, 4, 8, 0, 1, 2, 8, 4, 8}; /* by element type */
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    OrtTypeInfo *info;
    const OrtTensorTypeAndShapeInfo *about;
    enum ONNXTensorElementDataType type;
    size_t rank, count = 1;
    CALL(SessionGetInputTypeInfo, session, input, &info);
    CALL(CastTypeInfoToTensorInfo, info, &about);
    CALL(GetTensorElementType, about, &type);
    CALL(GetDimensionsCount, about, &rank);
    int64_t shape[rank + 1];
    CALL(GetDimensions, about, shape, rank);
    for (size_t axis = 0; axis < rank; count *= (size_t)shape[axis++])
        if (shape[axis] < 0) shape[axis] = axis ? 1 : (int64_t)size; /* a dynamic axis */
    uint8_t *data, width = sizes[type];
    CALL(CreateTensorAsOrtValue, allocator, shape, rank, type, made);
    CALL(GetTensorMutableData, *made, (void **)&data);
    double number = strtod(values, NULL);
    float single = (float)number;
    _Float16 half = (_Float16)number;
    uint64_t whole = number < 0 ? (uint64_t)(int64_t)number : (uint64_t)number;
    void *value = type == 1 ? &single : type == 10 ? &half : type == 11 ? &number : (void *)&whole;
    for (size_t i = 0; *values != '"' && i < count; i++) memcpy(data + i * width, value, width);
    for (size_t i = 0, k = 1, bits = 0, held = 0; *values == '"' && i < count * width; k++) {
        bits = bits << 6 | (size_t)(strchr(digits, values[k]) - digits);
        if ((held += 6) >= 8) data[i++] = (uint8_t)(bits >> (held -= 8));
    }
    return data;
}

int main(int argc, char **argv) {
    const char *names[] = {"--temperature", "--top-k", "--top-p", "--length", "--seed", "--prompt"};
    const char *keys[] = {"zoo.graph", "zoo.tokenizer", "zoo.state", "zoo.training"};
    char *given[] = {"0", "0", "1", "200", "0", NULL}, *facts[4];
    if (argc < 2 || argc % 2) FAIL(2, "usage: generate FILE.onnx [--prompt TEXT] ...");
    for (int i = 2, n = 0; i < argc; i += 2, n = 0) {
        while (n < 6 && strcmp(argv[i], names[n])) n++;
        if (n == 6) FAIL(2, "there is no option %s", argv[i]);
        given[n] = argv[i + 1];
        size_t digits = strspn(given[n], n == 0 || n == 2 ? "0123456789." : "0123456789");
        if (n < 5 && (digits < 1 || digits > 19 || given[n][digits] || !strtod(given[2], NULL)))
            FAIL(2, "%s cannot be '%s'", argv[i], given[n]);
    }
    size_t length = strtoull(given[3], NULL, 10), count, inputs;
    Random random = seeded(strtoull(given[4], NULL, 10));
    OrtEnv *env;
    OrtSessionOptions *options;
    OrtModelMetadata *about;
    if (!(ort = OrtGetApiBase()->GetApi(ORT_API_VERSION))) FAIL(1, "ONNX Runtime is too old");
    CALL(GetAllocatorWithDefaultOptions, &allocator);
    CALL(CreateEnv, ORT_LOGGING_LEVEL_FATAL, "generate", &env);
    CALL(CreateSessionOptions, &options);
    CALL(SetIntraOpNumThreads, options, 1);
    CALL(CreateSession, env, argv[1], options, &session);
    CALL(SessionGetModelMetadata, session, &about);
    for (int i = 0; i < 4; i++)
        CALL(ModelMetadataLookupCustomMetadataMap, about, allocator, keys[i], &facts[i]);
    if (!facts[0] || strcmp(facts[0], "generate")) FAIL(1, "%s is no generate graph", argv[1]);
    /* tokens are bytes, or characters from 1 on; 0 is a character that the model never saw */
    setlocale(LC_CTYPE, "C.UTF-8");
    wchar_t *characters = string(member(facts[1], "characters"));
    wchar_t *kind = string(member(facts[1], "kind")), *own = string(member(facts[3], "prompt"));
    int bytes = !wcscmp(kind, L"byte"), letters = !wcscmp(kind, L"letters");
    if (!bytes && !letters && wcscmp(kind, L"char")) FAIL(1, "unsupported tokenizer %ls", kind);
    char *prompt = given[5] ? given[5] : calloc(wcslen(own) + 1, 4);
    if (!given[5]) wcstombs(prompt, own, 4 * wcslen(own));
    wchar_t text[strlen(prompt) + 1];
    count = bytes ? strlen(prompt) : mbstowcs(text, prompt, strlen(prompt) + 1);
    if (!count || count > strlen(prompt)) FAIL(2, "the prompt is empty, or is not UTF-8");
    for (size_t i = 0; letters && i < count; i++) text[i] = (wchar_t)towlower((wint_t)text[i]);
    CALL(SessionGetInputCount, session, &inputs); /* token, states, uniform, and three settings */
    size_t states = inputs - 5, uniform = states + 1, outputs = states + 1;
    const char *in[inputs], *out[outputs], *state = facts[2];
    OrtValue *feeds[inputs], *results[outputs];
    int64_t *token = tensor(&feeds[0], 0, 1, "0"), *tokens;
    for (size_t i = 0; i < inputs; i++) {
        CALL(SessionGetInputName, session, i, allocator, (char **)&in[i]);
        if (i < outputs) CALL(SessionGetOutputName, session, i, allocator, (char **)&out[i]);
        if (i && i <= states) tensor(&feeds[i], i, 1, state = member(state, "initial"));
        if (i > uniform) tensor(&feeds[i], i, 1, given[i - uniform - 1]);
    }
    for (size_t i = 0; i < count; i++) { /* the last token is continued; the others are only read */
        const wchar_t *found = bytes ? NULL : wcschr(characters, text[i]);
        *token = bytes ? (uint8_t)prompt[i] : found ? found - characters + 1 : 0;
        size_t steps = i + 1 == count && length ? length : 1;
        float *numbers = tensor(&feeds[uniform], uniform, steps, "0");
        for (size_t n = 0; i + 1 == count && n < steps; n++) numbers[n] = next_number(&random);
        memset(results, 0, sizeof results);
        CALL(Run, session, NULL, in, (const OrtValue **)feeds, inputs, out, outputs, results);
        for (size_t leaf = 1; leaf < outputs; feeds[leaf] = results[leaf], leaf++)
            ort->ReleaseValue(feeds[leaf]);
    }
    CALL(GetTensorMutableData, results[0], (void **)&tokens);
    int64_t end = bytes ? 256 : (int64_t)wcslen(characters) + 1; /* of the text */
    fputs(prompt, stdout);
    for (size_t i = 0; i < length && tokens[i] < end; i++)
        if (bytes) putchar((int)tokens[i]);
        else printf("%lc", tokens[i] ? (wint_t)characters[tokens[i] - 1] : 0xFFFD);
    return putchar('\n') == EOF;
}
